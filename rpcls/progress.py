"""A progress bar on a terminal, silence anywhere else."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from .errors import MissingDependencyError

__all__ = ["Progress"]


class Progress:
    """Context manager with `step(what)` before and `done(cost)` after each piece of work.

    Parameters
    ----------
    total : float or None
        Sum of all costs, in whatever unit `done` counts; None if it is not known.
    show : bool or None
        None: only when standard error is a terminal and rich is installed.
    extra : str
        The extra of this package that installs rich, for the error when it is missing.
    """

    def __init__(self, total: float | None, show: bool | None, extra: str) -> None:
        self._total = total
        self._bar: Any = None
        if show is False or (show is None and not sys.stderr.isatty()):
            return
        try:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as RichProgress
        except ImportError as error:
            if show:
                raise MissingDependencyError.for_package("rich", extra, "A progress bar") from error
            return
        self._bar = RichProgress(
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=4,
        )

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total)
        return self

    def step(self, what: str) -> None:
        """Say what runs now."""
        if self._bar is not None:
            self._bar.update(self._task, description=what, refresh=True)

    def done(self, cost: float) -> None:
        """Count a finished piece."""
        if self._bar is not None:
            self._bar.advance(self._task, cost)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
