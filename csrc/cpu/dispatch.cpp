// Picks the widest instruction set that both the processor and the operating system support.
#include <atomic>
#include <stdexcept>
#include <string>

#include "cpu/kernels.h"

namespace specdec {
namespace {

bool supported(const std::string& name) {
  if (name == "scalar") return true;
#ifdef SPECDEC_X86
  if (name == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (name == "avx512") {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && supported("avx2");
  }
#endif
  return false;
}

const Kernels* table(const std::string& name) {
#ifdef SPECDEC_X86
  if (name == "avx512") return &kAvx512Kernels;
  if (name == "avx2") return &kAvx2Kernels;
#endif
  (void)name;
  return &kScalarKernels;
}

const Kernels* widest() {
  for (const char* name : {"avx512", "avx2"}) {
    if (supported(name)) return table(name);
  }
  return &kScalarKernels;
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

const Kernels& kernels() {
  const Kernels* current = chosen.load(std::memory_order_acquire);
  if (current == nullptr) {
    current = widest();
    chosen.store(current, std::memory_order_release);
  }
  return *current;
}

void select_isa(const char* name) {
  const std::string wanted = name;
  if (wanted == "auto") {
    chosen.store(widest(), std::memory_order_release);
  } else if (supported(wanted)) {
    chosen.store(table(wanted), std::memory_order_release);
  } else {
    throw std::invalid_argument("SPECDEC_CPU_ISA is '" + wanted +
                                "', which this machine cannot run: use auto, scalar, avx2 or avx512.");
  }
}

}  // namespace specdec
