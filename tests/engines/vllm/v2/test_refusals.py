"""What stops the start of a V2 engine with our worker: one sentence that names the value and the remedy."""

from types import SimpleNamespace

import pytest

pytest.importorskip("vllm")

from specdec.engines.vllm.patches import require
from specdec.engines.vllm.v2.install import V2Adapter
from specdec.errors import SpecdecError


def runner(speculative: dict | None = None, vllm: dict | None = None, **rest: dict) -> SimpleNamespace:
    """The part of a V2 runner that says what was asked for."""
    return SimpleNamespace(
        speculative_config=SimpleNamespace(**(speculative or {})),
        vllm_config=SimpleNamespace(**(vllm or {})),
        model_config=SimpleNamespace(**rest.get("model", {})),
        parallel_config=SimpleNamespace(**rest.get("parallel", {})),
    )


@pytest.mark.parametrize(
    ("asked", "flag"),
    [
        ({"speculative": {"enable_adaptive_verification": True}}, "enable_adaptive_verification"),
        ({"vllm": {"watermark_config": object()}}, "--watermark-config"),
        ({"parallel": {"enable_batch_sharded_sampling": True}}, "--enable-batch-sharded-sampling"),
        ({"model": {"enable_trace_replay": True}}, "--enable-trace-replay"),
        ({"model": {"return_sampling_mask": True}}, "--return-sampling-mask"),
    ],
)
def test_combinations(asked: dict, flag: str) -> None:
    with pytest.raises(SpecdecError, match=f"{flag}.* is not supported with specdec's verification: leave it out"):
        V2Adapter(runner(**asked), None, count=True)


def test_a_runner_that_lacks_what_we_build_on() -> None:
    with pytest.raises(SpecdecError, match=r"this vLLM has no GPUModelRunner\.speculator: use a version"):
        V2Adapter(runner(), None, count=True)
    with pytest.raises(SpecdecError, match=r"this vLLM has no InputBatch\.b: use a version"):
        require("InputBatch", {"a"}, "a", "b")
