"""Device code of the triton backend (specdec/verify/triton.py)."""
