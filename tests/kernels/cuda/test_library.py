"""The installed library, and what only a GPU can show of it."""

import contextlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from specdec.errors import SpecdecError
from specdec.sampling import SamplingBatch
from specdec.verify import Draft, backends, cuda, verify
from specdec.verify.backends import FAST_FLOAT64, choose
from specdec.verify.cuda import Kernels
from tests.helpers.cases import Case, random_case
from tests.kernels.subject import as_input

NVCC = shutil.which("nvcc", path="/usr/local/cuda/bin") or shutil.which("nvcc")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="no nvcc: built without the CUDA kernels")
needs_gpu = pytest.mark.skipif(cuda.problem() is not None, reason=str(cuda.problem()))


def installed() -> Path:
    path = cuda.library_path()
    assert path is not None, "nvcc is here but the library is not: install specdec again"
    return path


@needs_nvcc
def test_the_build_has_made_it_and_it_loads():
    assert Kernels(installed()).architectures() == ["sm_80", "sm_90a", "compute_90"]


@needs_nvcc
def test_it_holds_code_for_these_architectures():
    cuobjdump = shutil.which("cuobjdump", path=str(Path(NVCC or "").resolve().parent)) or shutil.which("cuobjdump")
    if cuobjdump is None:
        pytest.skip("no cuobjdump")
    command = [cuobjdump, "--list-elf", "--list-ptx", str(installed())]
    files = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"\.(sm_\w+)\.(cubin|ptx)", files)) == {
        ("sm_80", "cubin"),
        ("sm_90a", "cubin"),
        ("sm_90", "ptx"),
    }


@needs_nvcc
def test_it_links_against_nothing_of_cuda_or_torch():
    needed = subprocess.run(["ldd", str(installed())], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"libcuda|libtorch|libc10|not found", needed)


@needs_nvcc
def test_an_error_of_cuda_is_raised_with_its_text():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, which runs it")
    case = random_case(0, 20, 2)
    with pytest.raises(SpecdecError, match=r"could not run verify_token on cpu: .+"):
        Kernels(installed()).verify("verify_token", as_input(case))


@needs_nvcc
def test_a_gpu_on_which_it_cannot_run_is_a_problem(monkeypatch: pytest.MonkeyPatch):
    """As with a driver older than the build's CUDA: torch sees a GPU, and the library cannot use it."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, which runs it")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    cuda._problem_of.cache_clear()
    try:
        assert re.fullmatch(
            r"its kernels cannot run on this GPU, says CUDA \(.*(driver|device).*\)", cuda.problem() or ""
        )
        assert "cuda" not in backends()
    finally:
        cuda._problem_of.cache_clear()


def test_only_tensors_on_a_gpu_are_taken():
    assert not cuda.accepts(torch.device("cpu")) and cuda.accepts(torch.device("cuda:1"))
    assert ("cuda" in backends()) == (cuda.problem() is None)
    case = random_case(0, 20, 2)
    with pytest.raises(SpecdecError, match="does not take tensors on cpu"):
        verify(case.target, case.draft, case.sampling, backend="cuda")


def test_scratch_memory_is_small(emulated: Kernels):
    """At a batch of 8 with 3 drafts: under 5 % of bfloat16 target logits over 151,936 tokens."""
    assert emulated._function("scratch_bytes")(8, 24) < 0.0005 * 32 * 151_936 * 2


def on_gpu(case: Case) -> Case:
    draft, s = case.draft, case.sampling
    stats = None if draft.row_stats is None else draft.row_stats.cuda()
    logits = None if draft.logits is None else draft.logits.cuda()
    moved = SamplingBatch(*(t.cuda() for t in (s.temperature, s.top_k, s.top_p, s.min_p, s.seed, s.position)))
    return Case(case.target.cuda(), Draft(draft.token_ids.cuda(), draft.counts(), logits, stats), moved)


@needs_gpu
@pytest.mark.parametrize("method", ["token", "block"])
def test_nothing_waits_for_the_device_and_hardly_any_memory_is_taken(method: str):
    case = on_gpu(random_case(1, 151_936, 8, torch.bfloat16, counts=[3] * 8))
    verify(case.target, case.draft, case.sampling, method, "cuda", on_bad_row="repair")
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_sync_debug_mode("error")
    try:
        verify(case.target, case.draft, case.sampling, method, "cuda", on_bad_row="repair")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.max_memory_allocated() - before < 0.05 * case.target.nbytes


@needs_gpu
def test_the_current_stream_is_used():
    case = on_gpu(random_case(2, 32_001, 4, torch.float16))
    known = verify(case.target, case.draft, case.sampling, backend="cuda")
    stream = torch.cuda.Stream()
    late = torch.zeros_like(case.target)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late.copy_(case.target)
        out = verify(late, case.draft, case.sampling, backend="cuda", on_bad_row="repair")
    stream.synchronize()
    assert torch.equal(out.token_ids, known.token_ids)


@needs_gpu
def test_auto_takes_it_where_float64_is_fast():
    here = torch.device("cuda", torch.cuda.current_device())
    is_fast = torch.cuda.get_device_capability() in FAST_FLOAT64
    assert (choose("auto", here) is cuda) == is_fast


@needs_gpu
def test_a_graph_that_is_captured_says_so():
    case = on_gpu(random_case(3, 1000, 4))
    with torch.cuda.graph(torch.cuda.CUDAGraph()), pytest.raises(SpecdecError, match="captured in a CUDA graph"):
        verify(case.target, case.draft, case.sampling, backend="cuda", on_bad_row="repair")
