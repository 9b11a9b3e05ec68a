"""Device code of steering (specdec/steering)."""
