#include "emulation.h"

namespace specdec::cuda {
namespace emulation {

Machine& Machine::get() {
  static Machine machine;
  return machine;
}

const char* Machine::run(int64_t blocks, int team, int64_t shared_bytes, const std::function<void()>& kernel) {
  error_.clear();
  kernel_ = &kernel;
  team_size_ = team;
  if (static_cast<int>(blocks_.size()) < team) blocks_.resize(team);
  while (static_cast<int>(fibers_.size()) < team * kThreads) {
    fibers_.push_back(std::make_unique<Fiber>());
    fibers_.back()->stack.reset(new char[kStackBytes]);
  }
  for (first_block_ = 0; first_block_ < blocks && error_.empty(); first_block_ += team) run_team(shared_bytes);
  if (error_.empty()) return nullptr;
  fibers_.clear();  // some are in the middle of the kernel
  return error_.c_str();
}

void Machine::run_team(int64_t shared_bytes) {
  team_ = Group();
  team_.size = team_size_ * kThreads;
  for (int rank = 0; rank < team_size_; ++rank) {
    Block& block = blocks_[rank];
    block.memory.assign(shared_bytes + kGuardBytes, kPoison);
    std::fill(block.memory.end() - kGuardBytes, block.memory.end(), kGuard);
    block.all = Group();
    block.all.size = kThreads;
    for (Group& warp : block.warps) {
      warp = Group();
      warp.size = 32;
    }
  }
  for (int i = 0; i < team_.size; ++i) {
    Fiber& fiber = *fibers_[i];
    fiber.thread = i % kThreads;
    fiber.rank = i / kThreads;
    fiber.finished = false;
    fiber.waits_for = nullptr;
  }
  const std::vector<int> ranks = order(team_size_), warps = order(kThreads / 32), lanes = order(32);
  // One after the other, each warp and each block goes as far as it can before the next one does anything.
  const auto warp_ahead = [&](int first) {
    bool progress = false;
    for (int lane : lanes) progress |= resume(*fibers_[first + lane]);
    return progress;
  };
  const auto block_ahead = [&](int first) {
    bool progress = false;
    for (int warp : warps) {
      while (warp_ahead(first + 32 * warp)) progress = true;
    }
    return progress;
  };
  bool progress = true;
  while (progress) {
    progress = false;
    for (int rank : ranks) {
      while (block_ahead(kThreads * rank)) progress = true;
    }
  }
  if (!error_.empty()) return;
  const std::string waiting = describe_waiting();
  if (!waiting.empty()) fail(waiting);
  for (int rank = 0; rank < team_size_; ++rank) {
    const std::vector<char>& memory = blocks_[rank].memory;
    const bool whole = std::all_of(memory.end() - kGuardBytes, memory.end(), [](char c) { return c == kGuard; });
    if (!whole) fail("a write beyond the end of shared memory");
  }
}

std::vector<int> Machine::order(int count) const {
  std::vector<int> out(count);
  std::iota(out.begin(), out.end(), 0);
  if (order_seed_ == 1) std::reverse(out.begin(), out.end());
  if (order_seed_ > 1) std::shuffle(out.begin(), out.end(), std::mt19937(order_seed_));
  return out;
}

std::string Machine::describe_waiting() const {
  static const char* const kNames[] = {"nothing",    "block_sync", "team_sync", "shuffle_xor",
                                       "shuffle_up", "shuffle",    "ballot"};
  for (int i = 0; i < team_.size; ++i) {
    const Fiber& fiber = *fibers_[i];
    if (fiber.finished) continue;
    char text[160];
    std::snprintf(text, sizeof text, "thread %d of block %d waits at %s, where %d of %d have arrived, for ever",
                  fiber.thread, fiber.rank, kNames[static_cast<int>(fiber.operation)], fiber.waits_for->arrived,
                  fiber.waits_for->size);
    return text;
  }
  return {};
}

// False where it has to wait. Fibers begin with the functions made for that, then change by the much faster jumps.
bool Machine::resume(Fiber& fiber) {
  const bool waits = fiber.waits_for != nullptr && fiber.waits_for->round == fiber.waits_round;
  if (fiber.finished || waits || !error_.empty()) return false;
  current_ = &fiber;
  if (_setjmp(scheduler_) != 0) return true;
  if (fiber.started) _longjmp(fiber.at, 1);
  fiber.started = true;
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack.get();
  fiber.start.uc_stack.ss_size = kStackBytes;
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, &Machine::fiber_main, 0);
  setcontext(&fiber.start);
  return true;  // not reached: the fiber comes back to _setjmp above
}

void Machine::fiber_main() {
  Machine& machine = get();
  for (;;) {
    (*machine.kernel_)();
    Fiber& fiber = machine.current();
    fiber.finished = true;
    if (_setjmp(fiber.at) == 0) _longjmp(machine.scheduler_, 1);
  }
}

void Machine::arrive_and_wait(Group& group, Operation operation) {
  Fiber& fiber = *current_;
  fiber.operation = operation;
  fiber.waits_for = &group;
  fiber.waits_round = group.round;
  if (++group.arrived == group.size) {
    group.arrived = 0;
    ++group.round;
  }
  if (_setjmp(fiber.at) == 0) _longjmp(scheduler_, 1);
}

// From within a fiber, which is then left where it stands.
void Machine::fail(const std::string& what) {
  if (error_.empty()) error_ = what;
}

void check(bool fine, const char* what) {
  if (fine) return;
  Machine& machine = Machine::get();
  machine.fail(what);
  Group never;
  never.size = 2;
  machine.arrive_and_wait(never, Operation::kNone);
}

namespace {

// After all lanes have arrived: their values.
const uint64_t* gather(uint64_t mine, Operation operation) {
  Machine& machine = Machine::get();
  const Fiber& fiber = machine.current();
  const int lane = fiber.thread % 32;
  Group& warp = machine.block(fiber.rank).warps[fiber.thread / 32];
  const int turn = static_cast<int>(warp.round % 2);
  warp.values[turn][lane] = mine;
  warp.operations[turn][lane] = operation;
  machine.arrive_and_wait(warp, operation);
  const Operation* all = warp.operations[turn];
  check(std::all_of(all, all + 32, [=](Operation o) { return o == operation; }),
        "lanes of a warp take part in different operations");
  return warp.values[turn];
}

}  // namespace

uint64_t exchange(uint64_t mine, int from, Operation operation) { return gather(mine, operation)[from]; }

}  // namespace emulation

unsigned ballot(bool vote) {
  const uint64_t* votes = emulation::gather(vote, emulation::Operation::kBallot);
  unsigned mask = 0;
  for (int lane = 0; lane < 32; ++lane) mask |= static_cast<unsigned>(votes[lane]) << lane;
  return mask;
}

}  // namespace specdec::cuda

extern "C" void specdec_emulation_order(int seed) { specdec::cuda::emulation::Machine::get().set_order(seed); }
