import pytest

# Not test files by their names, but they assert.
pytest.register_assert_rewrite("tests.kernels.compiling", "tests.kernels.every_backend")
