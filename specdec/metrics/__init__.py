"""Acceptance figures: counters filled on the hot path (counters.py), their Prometheus export apart (export.py)."""
