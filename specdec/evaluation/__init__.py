"""Measuring heads on held-out text."""
