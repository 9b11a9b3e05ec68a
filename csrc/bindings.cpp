// The contents of specdec._C. Tensors arrive as addresses and strides, so that one build serves every torch version.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "cpu/api.h"
#include "cpu/parallel.h"
#include "cpu/philox.h"

namespace py = pybind11;
using namespace specdec;

namespace {

template <typename T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

SamplingView sampling_view(const std::array<uintptr_t, 6>& a) {
  return {at<float>(a[0]), at<int32_t>(a[1]), at<float>(a[2]), at<float>(a[3]), at<int64_t>(a[4]), at<int64_t>(a[5])};
}

Rows rows(const std::array<int64_t, 3>& r) {
  return {at<char>(static_cast<uintptr_t>(r[0])), r[1], static_cast<int>(r[2])};
}

py::object report(const Outcome& o) {
  if (o.fault == kNone) return py::none();
  return py::make_tuple(static_cast<int>(o.fault), o.request, o.row);
}

template <Outcome (*verify)(const VerifyTask&)>
py::object call_verify(int64_t vocab, std::array<int64_t, 3> target, const std::vector<int32_t>& counts,
                       uintptr_t tokens, bool tokens_are_int64, std::array<int64_t, 3> draft, uintptr_t stats,
                       uintptr_t draft_rows, std::array<uintptr_t, 6> sampling, uintptr_t out_tokens, int64_t out_width,
                       uintptr_t out_accepted, uintptr_t out_expected, uintptr_t out_accept_probs, int max_threads) {
  const VerifyTask task = {static_cast<int64_t>(counts.size()),
                           vocab,
                           rows(target),
                           counts.data(),
                           at<void>(tokens),
                           tokens_are_int64,
                           rows(draft),
                           at<double>(stats),
                           at<int64_t>(draft_rows),
                           sampling_view(sampling),
                           at<int32_t>(out_tokens),
                           out_width,
                           at<int32_t>(out_accepted),
                           at<float>(out_expected),
                           at<float>(out_accept_probs),
                           max_threads};
  Outcome outcome;
  {
    py::gil_scoped_release release;
    outcome = verify(task);
  }
  return report(outcome);
}

py::object call_sample_draft(int64_t num_requests, int64_t vocab, int64_t step, std::array<int64_t, 3> logits,
                             std::array<uintptr_t, 6> sampling, uintptr_t out_tokens, uintptr_t out_stats,
                             int max_threads) {
  const SampleTask task = {
      num_requests,          vocab,      step, rows(logits), sampling_view(sampling), at<int32_t>(out_tokens),
      at<double>(out_stats), max_threads};
  Outcome outcome;
  {
    py::gil_scoped_release release;
    outcome = sample_draft(task);
  }
  return report(outcome);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "specdec's host kernels";
  m.def("verify_token", &call_verify<verify_token>);
  m.def("verify_block", &call_verify<verify_block>);
  m.def("sample_draft", &call_sample_draft);
  m.def("philox_uniform", [](int64_t seed, int64_t position, uint32_t purpose) {
    return philox_uniform(seed, position, static_cast<Purpose>(purpose));
  });
  m.def("use_openmp", [](uintptr_t parallel) { openmp_parallel = reinterpret_cast<OpenMPParallel>(parallel); });
  m.def("select_isa", [](const std::string& name) { select_isa(name.c_str()); });
  m.def("isa", [] { return std::string(kernels().name); });
}
