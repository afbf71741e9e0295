"""Progress of long calls: a live bar in a terminal, plain lines elsewhere, or nothing.

Ctrl-C always ends a long call in order: the display says at which step it stopped and lets the
``KeyboardInterrupt`` pass. Loops that want to finish the running step first (to write a checkpoint)
wrap themselves in :func:`catch_interrupt`.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Protocol, Self, TextIO, runtime_checkable

__all__ = ["Interrupt", "Progress", "catch_interrupt", "open_progress"]

_LINE_INTERVAL = 5.0
_FRAME_INTERVAL = 0.1


@runtime_checkable
class Progress(Protocol):
    """Where a long call reports how far it is; a context manager around the loop."""

    def update(self, step: int, **fields: float | str) -> None:
        """Report that ``step`` steps are done, with numbers to show (residual, loss, ...)."""

    def note(self, text: str) -> None:
        """Show one line above the progress."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_progress(
    total: int | None,
    *,
    description: str,
    seconds: float | None = None,
    show: bool | None = None,
    stream: TextIO | None = None,
) -> Progress:
    """Choose the display of a long call.

    Args:
        total: Number of steps, or None if it is not known in advance.
        description: One or two words in front of the numbers.
        seconds: Time after which the call ends whatever its step [s], if there is such a limit.
        show: False for silence, True to show always, None to show only in a terminal.
        stream: Where to write; standard error by default. A live bar if it is a terminal,
            otherwise one plain line every few seconds.

    Returns:
        A :class:`Progress` to use in a ``with`` statement.

    Example:
        >>> with open_progress(3, description="solve", show=False) as progress:
        ...     for step in range(3):
        ...         progress.update(step + 1, residual=1e-3)
    """
    target = sys.stderr if stream is None else stream
    is_terminal = target.isatty()
    if show is False or (show is None and not is_terminal):
        return _SilentProgress()
    clock = _Clock(total, description, seconds)
    return _LiveProgress(clock, target) if is_terminal else _PlainProgress(clock, target)


class _Clock:
    """What all displays know: step, rate and time left."""

    def __init__(self, total: int | None, description: str, seconds: float | None = None) -> None:
        self.total = total
        self.description = description
        self._seconds = seconds
        self.step = 0
        self.fields: dict[str, float | str] = {}
        self._began = time.monotonic()
        self._first: int | None = None

    def update(self, step: int, fields: dict[str, float | str]) -> None:
        if self._first is None:
            # A resumed call starts at a later step, and its rate must not count the earlier ones.
            self._first = max(step - 1, 0)
        self.step = step
        self.fields = fields

    @property
    def share(self) -> float | None:
        """How much is done, by steps or by time, whichever ends the call first."""
        shares = []
        if self.total:
            shares.append(self.step / self.total)
        if self._seconds:
            shares.append((time.monotonic() - self._began) / self._seconds)
        return min(max(shares), 1.0) if shares else None

    def line(self) -> str:
        """Step, rate, time left and fields in one line."""
        total = "" if self.total is None else f"/{self.total}"
        parts = [f"{self.description} {self.step}{total}"]
        rate = self._rate()
        if rate:
            parts.append(f"{rate:.3g}/s")
        left = self._left(rate)
        if left is not None:
            parts.append(f"{_duration(left)} left")
        parts += [f"{name} {_field(value)}" for name, value in self.fields.items()]
        return "  ".join(parts)

    def closing(self, kind: type[BaseException] | None) -> str:
        if kind is None:
            return self.line()
        word = (
            "interrupted" if issubclass(kind, KeyboardInterrupt) else f"stopped by {kind.__name__}"
        )
        return f"{self.line()}  ({word})"

    def _left(self, rate: float) -> float | None:
        """Time to the last step or to the end of the time, whichever comes first [s]."""
        ends = []
        if self.total is not None and rate:
            ends.append((self.total - self.step) / rate)
        if self._seconds is not None:
            ends.append(self._seconds - (time.monotonic() - self._began))
        return min(ends, default=None)

    def _rate(self) -> float:
        elapsed = time.monotonic() - self._began
        if self._first is None or elapsed <= 0:
            return 0.0
        return (self.step - self._first) / elapsed


class _SilentProgress:
    def update(self, step: int, **fields: float | str) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _PlainProgress:
    """Whole lines with a pause between them, for log files and pipes."""

    def __init__(self, clock: _Clock, stream: TextIO, *, interval: float = _LINE_INTERVAL) -> None:
        self._clock = clock
        self._stream = stream
        self._interval = interval
        self._next = 0.0

    def update(self, step: int, **fields: float | str) -> None:
        self._clock.update(step, fields)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._interval
            self.note(self._clock.line())

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.note(self._clock.closing(kind))


class _LiveProgress:
    """A bar that redraws itself in a terminal."""

    def __init__(self, clock: _Clock, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column

        self._clock = clock
        self._next = 0.0
        self._bar = RichProgress(
            BarColumn(bar_width=24),
            # Many numbers take several lines rather than lose the last ones.
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=False)),
            console=Console(file=stream),
            # Drawn from update(): a background thread would compete with the solver for a core.
            auto_refresh=False,
        )
        self._task = self._bar.add_task(
            clock.description, total=None if clock.share is None else 1.0
        )

    def update(self, step: int, **fields: float | str) -> None:
        self._clock.update(step, fields)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _FRAME_INTERVAL
            self._draw(self._clock.line())

    def note(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._draw(self._clock.closing(kind))
        # Also gives the cursor back, hence on every way out.
        self._bar.stop()

    def _draw(self, line: str) -> None:
        share = self._clock.share or 0.0
        self._bar.update(self._task, completed=share, description=line, refresh=True)


class Interrupt:
    """Whether Ctrl-C was pressed inside :func:`catch_interrupt`."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def is_requested(self) -> bool:
        """Whether the loop should end after the running step."""
        return self._event.is_set()

    def request(self) -> None:
        """Ask the loop to end, as Ctrl-C does."""
        self._event.set()


@contextmanager
def catch_interrupt() -> Iterator[Interrupt]:
    """Turn the first Ctrl-C into a flag; a second one stops at once.

    Outside the main thread Python delivers no signals, so there the flag only follows
    :meth:`Interrupt.request`.

    Yields:
        The flag, to be read once per step.

    Example:
        >>> with catch_interrupt() as interrupt:
        ...     for step in range(1000):
        ...         if interrupt.is_requested or step == 2:
        ...             break
        >>> step
        2
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupt.is_requested:
            raise KeyboardInterrupt
        interrupt.request()

    previous: Callable[[int, FrameType | None], Any] | int | None
    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupt
    finally:
        # None means that the earlier handler was not set from Python and cannot be put back.
        signal.signal(signal.SIGINT, signal.SIG_DFL if previous is None else previous)


def _field(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
