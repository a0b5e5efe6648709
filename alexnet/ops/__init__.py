"""Compiled kernels for CPUs and GPUs, and how the process uses memory."""
