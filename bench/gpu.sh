#!/usr/bin/env bash
# What only a GPU can show: kernel tests, compute-sanitizer, times. Needs one Hopper-class GPU, PyTorch, Triton, nvcc and
# the build tools (scikit-build-core, pybind11, CMake, ninja, pytest, hypothesis); no network. At most 8 minutes.
#
#   bash bench/gpu.sh OUTPUT_FOLDER
#
# OUTPUT_FOLDER gets a log for each part, verify-cuda.json, and summary.txt: one line a part, passed or failed. Each part
# runs whatever became of those before it, within a bound of its own. Status 1 if one of them failed. Where vLLM is
# installed, an engine with the V2 runner is tried too, for 4 minutes more.
set -uo pipefail

output=${1:?"usage: bash bench/gpu.sh OUTPUT_FOLDER"}
mkdir -p "$output" && output=$(cd "$output" && pwd)
cd "$(dirname "$0")/.."
checkout=$PWD
python=${PYTHON:-python3}
# The tests run from a copy that holds the built package: the checkout's own specdec/ has no compiled parts.
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
export PATH=$PATH:/usr/local/cuda/bin
SPECDEC_COMMIT=$(git describe --always --abbrev=12 --dirty=+changes 2>/dev/null || echo unknown)
export SPECDEC_COMMIT PYTHONUNBUFFERED=1 PYTHONPATH=$stage
export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
limit=475   # seconds for everything
reserved=120 # of them for the bench
failed=0
: >"$output/summary.txt"

part() { # name, seconds at most, command ...
  local name=$1 bound=$2 began=$SECONDS left=$((limit - reserved - SECONDS)) status
  shift 2
  [ "$left" -ge "$bound" ] || bound=$((left > 1 ? left : 1))
  echo "==> $name (at most $bound s)"
  timeout -k 5 "$bound" "$@" >"$output/$name.log" 2>&1
  status=$?
  [ "$status" -eq 0 ] || failed=1
  echo "$name: $([ "$status" -eq 0 ] && echo passed || echo "FAILED, status $status") in $((SECONDS - began)) s" |
    tee -a "$output/summary.txt"
  tail -n 3 "$output/$name.log" | cut -c1-200
  return "$status"
}

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "gpu.sh: $python finds no GPU that its PyTorch can use: name another interpreter with PYTHON=..., or run elsewhere" >&2
  exit 2
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$output/gpu.txt"
part build 180 "$python" -m pip install -q --no-index --no-deps --no-build-isolation --target "$stage" "$checkout" || exit 1
cp -r tests bench examples pyproject.toml "$stage"
cd "$stage" || exit 1

part tests 150 "$python" -m pytest -q -p no:cacheprovider --durations=10 tests/kernels tests/verify
for backend in cuda triton; do
  part "memcheck-$backend" 60 compute-sanitizer --tool memcheck --error-exitcode 9 "$python" bench/_verify/smallest.py "$backend"
done
for tool in racecheck synccheck initcheck; do
  part "$tool-cuda" 40 compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" bench/_verify/smallest.py cuda
done
reserved=0
part bench 180 "$python" bench/verify.py --device cuda --seconds 0.2 --output "$output/verify-cuda.json"
if "$python" -c 'import vllm' 2>/dev/null; then
  limit=$((limit + 240))
  part engine 240 "$python" -m pytest -q -p no:cacheprovider tests/engines/vllm/v2/test_gpu_engine.py
fi
cat "$output/summary.txt"
exit "$failed"
