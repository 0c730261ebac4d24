"""Hypothesis draws the same examples in every run: a red test stays red, and a green one green."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "rpcls",
    derandomize=True,
    deadline=None,
    max_examples=25,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow],  # the first example may compile a kernel
)
settings.load_profile("rpcls")
