from pathlib import Path

import pytest

from tests.kernels.compiling import compiled


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "dtype", "vocabularies"),
    [
        ("sm_90", "bfloat16", ["151936:every", "1"]),
        ("sm_80", "float32", ["151936"]),
        ("sm_90", "float16", ["4096", "300"]),  # a row of fewer tokens than a search holds, of no multiple of 16
    ],
)
def test_every_kernel_compiles(target: str, dtype: str, vocabularies: list[str]):
    """For GPUs that are not here; half a minute, unless Triton's cache knows the kernels. In a launch, an integer of 1
    is a constant: hence the smallest vocabulary."""
    assert {line.split()[0] for line in compiled(Path(__file__).parent, target, dtype, *vocabularies)} == {
        "emit", "emit_draft", "row_statistics", "tile_residuals", "tile_statistics"
    }  # fmt: skip
