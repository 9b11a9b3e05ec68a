import pytest

# Not a test file by its name, but it asserts.
pytest.register_assert_rewrite("tests.kernels.every_backend")
