// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), as specdec/sampling/philox.py.
#pragma once

#include <cstdint>

namespace specdec {

enum Purpose : uint32_t { kDraft = 0, kAccept = 1, kRecover = 2, kBonus = 3 };

// Each draft of a step has a purpose of its own, the first one kDraft (specdec/verify/reference.py says why).
inline constexpr Purpose draft_purpose(int64_t step) { return static_cast<Purpose>(kDraft + 4 * step); }

// Uniform in [0, 1) with 53 bits: a function of (seed, position, purpose) alone.
inline constexpr double philox_uniform(int64_t seed, int64_t position, Purpose purpose) {
  const uint64_t s = static_cast<uint64_t>(seed), at = static_cast<uint64_t>(position);
  uint32_t key[2] = {static_cast<uint32_t>(s), static_cast<uint32_t>(s >> 32)};
  uint32_t c[4] = {static_cast<uint32_t>(at), static_cast<uint32_t>(at >> 32), purpose, 0};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = static_cast<uint64_t>(0xD2511F53u) * c[0], b = static_cast<uint64_t>(0xCD9E8D57u) * c[2];
    const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(b),
                              static_cast<uint32_t>(a >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(a)};
    for (int i = 0; i < 4; ++i) c[i] = next[i];
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return (static_cast<double>(c[0] >> 5) * 67108864.0 + static_cast<double>(c[1] >> 6)) * 0x1p-53;
}

}  // namespace specdec
