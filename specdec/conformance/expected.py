"""What is known to fail where, and why. An unexpected failure is an error; one that no longer fails is reported too."""

from dataclasses import dataclass

OURS = ("cuda", "triton", "cpu", "reference")


@dataclass(frozen=True, slots=True)
class Known:
    """versions: of the implementation's distribution, oldest and newest that were looked at, as (major, minor)."""

    implementation: str
    check: str
    reason: str
    versions: tuple[tuple[int, int], tuple[int, int]]


_VLLM = ((0, 32), (0, 33))
_SGLANG = ((0, 5), (0, 5))

_UNINITIALISED = (
    "expand_batch_to_tokens casts its float output to a new int64 tensor: on a CPU the temperatures are memory that "
    "was never written"
)
_STOCK = (
    "one-stream", "unchanged", "draft-rounding", "penalties", "vocabularies", "peaked-top-p", "ragged",
    "target-filters", "bonus-filters", "ties",
)  # fmt: skip
_V1 = {
    "bad-draft-rows": "the residual of a NaN row is NaN, its argmax token 0: always that, whatever the target says",
    "seeds": "drafts are drawn without the request's seed (compute_probs_and_sample_next_token)",
    "placeholders": "the CPU kernel takes -1 for an index into the draft row, and may accept and emit it",
    "lost-rows": "_get_spec_decode_draft_probs: one request without rows makes the whole batch one-hot",
}

KNOWN: tuple[Known, ...] = (
    *(Known("vllm-v1", check, _UNINITIALISED, _VLLM) for check in _STOCK),
    *(Known(name, check, reason, _VLLM) for name in ("vllm-v1", "vllm-v1-mended") for check, reason in _V1.items()),
    Known("vllm-v1-mended", "zero-uniform", "accepts where p / q >= u, which holds for p = 0 and u = 0", _VLLM),
    Known(
        "vllm-v2",
        "block-steps",
        "acceptance and draft numbers are named by position alone: behind a rejection the next step meets those that "
        "this one has looked at",
        _VLLM,
    ),
    Known("vllm-v2", "bad-draft-rows", "the residual of a NaN row is -inf everywhere, its argmax token 0", _VLLM),
    Known("sglang", "seeds", "with seeds enabled, requests that bring none all get seed 42", _SGLANG),
    Known("sglang", "min-p", "the verify step leaves min-p out (eagle_sample)", _SGLANG),
)


def known(implementation: str, check: str, version: str | None) -> str | None:
    """Why `check` is expected to fail there; None where it is not."""
    for entry in KNOWN:
        if (entry.implementation, entry.check) == (implementation, check):
            parts = (version or "").split(".")[:2]
            number = tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else None
            if number is None or entry.versions[0] <= number <= entry.versions[1]:
                return entry.reason
    return None
