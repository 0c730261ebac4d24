"""Every exception and warning that rpcls raises.

Messages state the rule, the value received, and what to do about it. All exceptions derive from
`RpclsError` and from the built-in class that a caller would expect, so ``except ValueError`` works too.
"""

from __future__ import annotations

import sys
import warnings

__all__ = [
    "ConvergenceWarning",
    "DeviceError",
    "FormatError",
    "InvalidTypeError",
    "InvalidValueError",
    "MissingDependencyError",
    "NonFiniteError",
    "NotConvergedError",
    "RpclsError",
    "RpclsWarning",
    "SketchWarning",
    "SourceError",
]


class RpclsError(Exception):
    """Base class of every exception that rpcls raises on purpose."""


class InvalidValueError(RpclsError, ValueError):
    """An argument has the right type but a value, shape or size that the call cannot use."""


class InvalidTypeError(RpclsError, TypeError):
    """An argument has a type or dtype that rpcls does not accept."""


class NonFiniteError(RpclsError, ValueError):
    """A or b contains NaN or infinity."""


class SourceError(RpclsError, RuntimeError):
    """The rows could not be read; the message names the row block."""


class DeviceError(RpclsError, RuntimeError):
    """A card cannot do what was asked: none is visible, its driver is too old, or its memory is full."""


class FormatError(RpclsError, ValueError):
    """A file is not what it should be: truncated, foreign, or of another version."""


class NotConvergedError(RpclsError, RuntimeError):
    """Raised by `Solution.raise_for_status` when a solution is not what was asked for."""


class MissingDependencyError(RpclsError, ImportError):
    """An optional library is needed for this call; the message says how to install it."""

    @classmethod
    def for_package(cls, package: str, extra: str, purpose: str) -> MissingDependencyError:
        """The error that says what needs the package, and how to install it."""
        return cls(f'{purpose} needs {package}, which is not installed; run: pip install "rpcls[{extra}]"')


class RpclsWarning(UserWarning):
    """Base class of every warning that rpcls emits."""


class ConvergenceWarning(RpclsWarning):
    """A solver returned its best x, but not the answer that was asked for."""


class SketchWarning(RpclsWarning):
    """A sketch was used where its guarantee is weak."""


def warn(message: str, category: type[RpclsWarning]) -> None:
    """Warn at the line outside this package that called into it."""
    package = __name__.partition(".")[0]
    level, frame = 2, sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
