"""Adapters to SGLang; importing this package imports no SGLang."""
