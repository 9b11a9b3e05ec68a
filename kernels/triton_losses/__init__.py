"""Device code of the fused linear losses (specdec/training/fused)."""
