"""Every kernel of a backend once, on the smallest cases that take each of its paths: what compute-sanitizer watches.

compute-sanitizer --tool memcheck --error-exitcode 9 python bench/_verify/smallest.py cuda
"""

import sys
from dataclasses import replace

import torch

from specdec.sampling import SamplingBatch
from specdec.verify import Draft, sample_draft, verify

PARAMETERS = {"temperature": [0.8, 0.0, 1.3], "top_k": [0, 5, 40], "top_p": [0.9, 1.0, 0.5], "min_p": [0.0, 0.05, 0.0]}
COUNTS = [2, 0, 3]


def sampling(requests: list[int], device: str) -> SamplingBatch:
    return SamplingBatch(
        seed=torch.tensor(requests, device=device),
        position=torch.full((len(requests),), 7, device=device),
        **{name: torch.tensor([values[r] for r in requests], device=device) for name, values in PARAMETERS.items()},
    )


def run(backend: str, vocabulary: int, dtype: torch.dtype, device: str) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    rows = sum(COUNTS) + len(COUNTS)
    # One column more than is used: rows are strided, and begin at addresses that are not aligned.
    wide = (3 * torch.randn(rows, vocabulary + 1, generator=generator)).to(dtype).to(device)
    target, request = wide[:, :vocabulary], [r for r, count in enumerate(COUNTS) for _ in range(count)]
    head = (target[: len(request)].float() + 0.5).to(dtype)
    tokens, stats = sample_draft(head, sampling(request, device), 0, backend, on_bad_row="repair")
    batch = sampling([0, 1, 2], device)
    full = Draft(tokens, COUNTS, head, stats)
    gone = torch.tensor([-1, 1, 2, 3, 4], device=device)
    broken = wide.clone()[:, :vocabulary]
    broken[1], broken[3, 0] = torch.nan, torch.inf
    for draft in (full, replace(full, row_stats=None), replace(full, rows=gone), Draft(tokens, COUNTS)):
        for method in ("token", "block"):
            for logits in (target, broken):
                verify(logits, draft, batch, method, backend, expected_acceptance=True, on_bad_row="repair")
                verify(logits, draft, batch, method, backend, on_bad_row="repair")


def main() -> None:
    backend = sys.argv[1]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for vocabulary in (7, 1031, 40_003):
        for dtype in (torch.bfloat16, torch.float32):
            run(backend, vocabulary, dtype, device)
    print(f"{backend}: ran on {device}")


if __name__ == "__main__":
    import warnings

    warnings.filterwarnings("ignore", "method='block' has no effect")
    main()
