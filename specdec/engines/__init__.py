"""Adapters to inference servers; the only place that imports one."""
