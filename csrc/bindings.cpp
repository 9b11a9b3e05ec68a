// The contents of specdec._C. Tensors arrive as addresses and strides, so that one build serves every torch version.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cpu/api.h"
#include "cpu/parallel.h"
#include "cpu/philox.h"
#include "metrics/step_cells.h"

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
                       uintptr_t out_accepted, uintptr_t out_expected, uintptr_t out_accept_probs,
                       uintptr_t out_bad_rows, int max_threads) {
  // Here, where it costs nothing: behind a forward pass, whose weights fill the caches, a tensor operation more is tens
  // of microseconds.
  if (out_bad_rows != 0) std::fill_n(at<int32_t>(out_bad_rows), counts.size(), -1);
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

// The first of n numbers that is below `low` or above `high`. A reduction of PyTorch's takes four times as long as the
// rest of a small step's checks together.
py::object first_outside(uintptr_t numbers, int64_t n, int64_t low, int64_t high) {
  const int64_t* begin = at<int64_t>(numbers);
  const int64_t* found = std::find_if(begin, begin + n, [&](int64_t x) { return x < low || x > high; });
  return found == begin + n ? py::object(py::none()) : py::int_(*found);
}

// An array [n], read where it is.
Numbers numbers(const py::array& a) {
  if (a.ndim() != 1 || (a.size() > 1 && a.strides(0) != a.itemsize()))
    throw std::invalid_argument("figures come as adjacent numbers");
  const auto as = [&a](Numbers::Type type) { return Numbers{a.data(), static_cast<int64_t>(a.size()), type}; };
  if (py::isinstance<py::array_t<int32_t>>(a)) return as(Numbers::kInt32);
  if (py::isinstance<py::array_t<float>>(a)) return as(Numbers::kFloat32);
  if (py::isinstance<py::array_t<bool>>(a)) return as(Numbers::kUint8);
  if (py::isinstance<py::array_t<int64_t>>(a)) return as(Numbers::kInt64);
  if (py::isinstance<py::array_t<double>>(a)) return as(Numbers::kFloat64);
  throw std::invalid_argument("figures come as int32, int64, float32, float64 or bool");
}

// Keeps the array of cells, float64 [n], for as long as it lives itself.
class StepCells {
 public:
  StepCells(py::array_t<double> cells, int64_t positions, const std::map<std::string, int64_t>& begins)
      : cells_(std::move(cells)),
        fields_{positions,
                begins.at("steps"),
                begins.at("undrafted_steps"),
                begins.at("draft_tokens"),
                begins.at("reached"),
                begins.at("accepted"),
                begins.at("recovered"),
                begins.at("bonus"),
                begins.at("expected_sum"),
                begins.at("tokens_per_step")} {}

  void add(const std::vector<int32_t>& counts, const py::array& accepted, const py::array& probability,
           const std::optional<py::array>& unfinished, const std::optional<py::array>& mine) {
    const auto given = [](const std::optional<py::array>& a) { return a ? numbers(*a) : Numbers{}; };
    add_step(cells_.mutable_data(), fields_, counts, numbers(accepted), numbers(probability), given(unfinished),
             given(mine));
  }

 private:
  py::array_t<double> cells_;
  StepFields fields_;
};

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "specdec's host kernels";
  m.def("verify_token", &call_verify<verify_token>);
  m.def("verify_block", &call_verify<verify_block>);
  m.def("sample_draft", &call_sample_draft);
  m.def("first_outside", &first_outside);
  m.def("philox_uniform", [](int64_t seed, int64_t position, uint32_t purpose) {
    return philox_uniform(seed, position, static_cast<Purpose>(purpose));
  });
  m.def("use_openmp", [](uintptr_t parallel) { openmp_parallel = reinterpret_cast<OpenMPParallel>(parallel); });
  m.def("select_isa", [](const std::string& name) { select_isa(name.c_str()); });
  py::class_<StepCells>(m, "StepCells")
      .def(py::init<py::array_t<double>, int64_t, const std::map<std::string, int64_t>&>())
      .def("add", &StepCells::add);
  m.def("isa", [] { return std::string(kernels().name); });
}
