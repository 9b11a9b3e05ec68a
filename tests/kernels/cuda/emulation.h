// CUDA's device language for the host compiler, as far as kernels/cuda/device.cuh uses it: the kernels' sources run as
// they stand, on one processor.
//
// Each thread of a team (cluster) is a fiber. It runs until it has to wait for others: at a barrier of its warp, block
// or team. What a GPU would leave undefined is made an error or made visible:
// - a thread that leaves, or waits at another barrier, while others wait for it: the launch fails and says where;
// - lanes of a warp that take part in different operations: the same;
// - shared memory begins as NaN bytes, and writing beyond its end is found;
// - a missing barrier shows by results that depend on the order (set_order) in which warps and blocks take their turns:
//   each goes as far ahead of the others as barriers let it.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#define SPECDEC_DEVICE inline
#define SPECDEC_KERNEL(threads, blocks_per_sm) void

namespace specdec::cuda {

using std::exp;
using std::fmax;
using std::log;

// Small, so that tests with small vocabularies still need several warps, tiles and blocks, and lists overflow.
constexpr int kThreads = 64;
constexpr int kListCapacity = 96;

namespace emulation {

enum class Operation { kNone, kBlockSync, kTeamSync, kShuffleXor, kShuffleUp, kShuffle, kBallot };

struct Group {  // of threads that wait for one another
  int size = 0, arrived = 0;
  int64_t round = 0;
  uint64_t values[2][32];  // of a warp's lanes, for this round and the one before
  Operation operations[2][32];
};

struct Block {
  std::vector<char> memory;
  Group all;
  Group warps[kThreads / 32];
};

struct Fiber {
  ucontext_t start;
  jmp_buf at;
  bool started = false, finished = true;
  int thread = 0, rank = 0;
  const Group* waits_for = nullptr;
  int64_t waits_round = 0;
  Operation operation = Operation::kNone;
  std::unique_ptr<char[]> stack;
};

constexpr size_t kStackBytes = 128 << 10;
constexpr size_t kGuardBytes = 256;
constexpr char kPoison = '\xff', kGuard = '\x5a';

class Machine {
 public:
  static Machine& get();

  // Null, or what went wrong.
  const char* run(int64_t blocks, int team, int64_t shared_bytes, const std::function<void()>& kernel);

  Fiber& current() { return *current_; }
  Block& block(int rank) { return blocks_[rank]; }
  Group& team_group() { return team_; }
  int64_t block_index() const { return first_block_ + current_->rank; }
  int team_size() const { return team_size_; }

  void arrive_and_wait(Group& group, Operation operation);
  void fail(const std::string& what);
  void set_order(int seed) { order_seed_ = seed; }

 private:
  void run_team(int64_t shared_bytes);
  bool resume(Fiber& fiber);
  std::vector<int> order(int count) const;
  static void fiber_main();
  std::string describe_waiting() const;

  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Block> blocks_;
  Group team_;
  int team_size_ = 1, order_seed_ = 0;
  int64_t first_block_ = 0;
  Fiber* current_ = nullptr;
  jmp_buf scheduler_;
  const std::function<void()>* kernel_ = nullptr;
  std::string error_;
};

// All lanes bring a value; each gets that of lane `from`.
uint64_t exchange(uint64_t mine, int from, Operation operation);
void check(bool fine, const char* what);

template <typename T>
T exchange_as(T mine, int from, Operation operation) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &mine, sizeof mine);
  bits = exchange(bits, from, operation);
  std::memcpy(&mine, &bits, sizeof mine);
  return mine;
}

}  // namespace emulation

inline int thread_index() { return emulation::Machine::get().current().thread; }
inline int64_t block_index() { return emulation::Machine::get().block_index(); }
inline int team_rank() { return emulation::Machine::get().current().rank; }
inline int team_size() { return emulation::Machine::get().team_size(); }

inline void block_sync() {
  emulation::Machine& machine = emulation::Machine::get();
  machine.arrive_and_wait(machine.block(team_rank()).all, emulation::Operation::kBlockSync);
}
inline void team_sync() {
  emulation::Machine& machine = emulation::Machine::get();
  machine.arrive_and_wait(machine.team_group(), emulation::Operation::kTeamSync);
}

inline char* shared_memory() { return emulation::Machine::get().block(team_rank()).memory.data(); }

template <typename T>
const T* of_rank(const T* mine, int rank) {
  emulation::Machine& machine = emulation::Machine::get();
  emulation::check(rank >= 0 && rank < machine.team_size(), "a rank outside of the team");
  const char* address = reinterpret_cast<const char*>(mine);
  return reinterpret_cast<const T*>(machine.block(rank).memory.data() + (address - shared_memory()));
}

template <typename T>
T shuffle_xor(T x, int mask) {
  return emulation::exchange_as(x, thread_index() % 32 ^ mask, emulation::Operation::kShuffleXor);
}
template <typename T>
T shuffle_up(T x, int by) {
  const int lane = thread_index() % 32;
  return emulation::exchange_as(x, lane < by ? lane : lane - by, emulation::Operation::kShuffleUp);
}
template <typename T>
T shuffle(T x, int lane) {
  emulation::check(lane >= 0 && lane < 32, "a lane outside of the warp");
  return emulation::exchange_as(x, lane, emulation::Operation::kShuffle);
}
unsigned ballot(bool vote);

template <typename T>
T atomic_add(T* at, T x) {
  const T before = *at;
  *at = before + x;
  return before;
}
inline void atomic_min(uint32_t* at, uint32_t x) { *at = std::min(*at, x); }
inline void atomic_or(uint32_t* at, uint32_t x) { *at |= x; }
inline uint32_t read_now(const uint32_t* at) { return *at; }

struct alignas(16) Bits128 {
  uint32_t words[4];
};
inline Bits128 load_128(const void* global) {
  emulation::check(reinterpret_cast<uintptr_t>(global) % 16 == 0, "a vector load from an address 16 does not divide");
  Bits128 out;
  std::memcpy(&out, global, sizeof out);
  return out;
}

template <typename To, typename From>
To same_bits(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To out;
  std::memcpy(&out, &x, sizeof out);
  return out;
}
inline float float_of(uint32_t bits) { return same_bits<float>(bits); }
inline uint32_t bits_of(float x) { return same_bits<uint32_t>(x); }
inline float float_of_half(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, magnitude = bits & 0x7fff;
  if (magnitude >= 0x7c00) return float_of(sign | 0x7f800000u | magnitude << 13);
  // Moving the exponent by multiplication handles subnormal numbers too.
  return same_bits<float>(bits_of(float_of(magnitude << 13) * 0x1p112f) | sign);
}
inline int leading_zeros(uint32_t x) { return x == 0 ? 32 : __builtin_clz(x); }
inline int lowest_bit(unsigned x) { return __builtin_ffs(static_cast<int>(x)) - 1; }
inline int highest_bit(unsigned x) { return 31 - leading_zeros(x); }

typedef void* Stream;

struct Device {
  int multiprocessors;
  int64_t shared_bytes;
  bool clusters;
};
inline Device current_device() { return {132, 227 << 10, true}; }

inline const char* use_device(int32_t) { return nullptr; }

template <typename... Parameters>
const char* problem_of(void (*)(Parameters...)) {
  return nullptr;
}

inline const char* fill_zero(void* at, int64_t bytes, Stream) {
  std::memset(at, 0, static_cast<size_t>(bytes));
  return nullptr;
}

template <typename... Parameters, typename... Arguments>
const char* launch_blocks(void (*kernel)(Parameters...), int64_t blocks, int team, int64_t shared_bytes, Stream,
                          const Arguments&... arguments) {
  return emulation::Machine::get().run(blocks, team, shared_bytes, [&] { kernel(arguments...); });
}

}  // namespace specdec::cuda
