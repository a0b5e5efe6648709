"""Atomic writes, locks between processes, and tensors in files."""
