"""Serial numba kernels."""
