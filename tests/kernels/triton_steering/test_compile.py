from pathlib import Path

import pytest

from tests.kernels.compiling import compiled


@pytest.mark.slow
@pytest.mark.parametrize(("target", "dtype"), [("sm_90", "bf16"), ("sm_80", "fp32")])
def test_the_kernel_compiles(target: str, dtype: str):
    """For GPUs that are not here, with and without each optional tensor."""
    assert len(compiled(Path(__file__).parent, target, dtype)) == 3
