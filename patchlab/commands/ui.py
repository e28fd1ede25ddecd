# SPDX-License-Identifier: GPL-2.0-or-later
"""Shows long steps: live bars on a terminal, plain lines with a time stamp elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from patchlab.progress import Step

EVERY = 10.0  # seconds between two lines of one step, without a terminal
_SURE = 0.02  # share of the work that must be done before its pace says anything

Clock = Callable[[], float]


def left(done: float, total: float, elapsed: float) -> float | None:
    """Seconds left if the rest goes at the pace so far; None while there is no pace yet."""
    if total <= 0 or done < _SURE * total or elapsed <= 0:
        return None
    return max(0.0, elapsed * (total - done) / done)


def span(seconds: float) -> str:
    """``8 s``, ``6 min``, ``1 h 05 min``: for a person who waits."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


class _View(Protocol):
    """How one step is shown. ``seconds`` is the time since the step began."""

    def begin(self, title: str) -> TaskID: ...

    def update(self, task: TaskID, done: float, total: float, seconds: float) -> None: ...

    def end(self, task: TaskID, outcome: str, seconds: float) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


class Terminal:
    """patchlab.progress.Progress on a rich Console, for many steps and threads at once.

    Use it as a context manager: leaving it, ^C included, gives the terminal back. ``clock``
    is in seconds; a test may bring its own.
    """

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._view: _View = _Live(console) if console.is_terminal else _Plain(console, clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._view.close()

    def step(self, title: str) -> AbstractContextManager[Step]:
        return self._step(title)

    @contextmanager
    def _step(self, title: str) -> Iterator[Step]:
        began = self._clock()
        task = self._view.begin(title)
        outcome = "failed"
        try:
            yield _Step(self._view, task, lambda: self._clock() - began)
            outcome = "done"
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        finally:
            self._view.end(task, outcome, self._clock() - began)

    def note(self, text: str) -> None:
        self._view.note(text)


class _Step:
    def __init__(self, view: _View, task: TaskID, elapsed: Clock) -> None:
        self._view, self._task, self._elapsed = view, task, elapsed

    def advance(self, done: float, total: float) -> None:
        self._view.update(self._task, done, total, self._elapsed())


def _print(console: Console, text: str) -> None:
    # Titles and notes hold names of files and variants: "[config]" is no markup of ours.
    console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Live:
    """Bars that are redrawn in place; the screen is touched only while a step runs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.RLock()
        self._titles: dict[TaskID, str] = {}
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[state]}", markup=False),
            _Elapsed(),
            console=console,
            transient=True,
        )

    def begin(self, title: str) -> TaskID:
        with self._lock:
            task = self._bars.add_task(title, total=None, state="")
            self._titles[task] = title
            self._bars.start()
            return task

    def update(self, task: TaskID, done: float, total: float, seconds: float) -> None:
        rest = left(done, total, seconds)
        share = f"{100 * done / total:3.0f} %" if total > 0 else ""
        state = share if rest is None else f"{share}, about {span(rest)} left"
        # Without a total the bar pulses.
        self._bars.update(task, completed=done, total=total if total > 0 else None, state=state)

    def end(self, task: TaskID, outcome: str, seconds: float) -> None:
        with self._lock:
            title = self._titles.pop(task)
            self._bars.remove_task(task)
            if not self._titles:
                self._bars.stop()
            _print(self._console, f"{_MARKS[outcome]} {title}: {outcome} in {span(seconds)}")

    def note(self, text: str) -> None:
        with self._lock:
            _print(self._console, text)
            if self._titles:
                self._bars.refresh()

    def close(self) -> None:
        self._bars.stop()


_MARKS = {"done": "✓", "failed": "✗", "interrupted": "✗"}


class _Elapsed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(span(task.elapsed or 0.0), style="dim")


class _Plain:
    """Lines for a log: a step's start and end, and its state every EVERY seconds at most."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console, self._clock = console, clock
        self._began = clock()
        self._lock = threading.Lock()
        self._titles: list[str] = []
        self._shown: list[float] = []  # when each step's last line came

    def begin(self, title: str) -> TaskID:
        with self._lock:
            self._titles.append(title)
            self._shown.append(self._clock())
            self._line(f"{title}: started")
            return TaskID(len(self._titles) - 1)

    def update(self, task: TaskID, done: float, total: float, seconds: float) -> None:
        with self._lock:
            now = self._clock()
            if total <= 0 or now - self._shown[task] < EVERY:
                return
            self._shown[task] = now
            rest = left(done, total, seconds)
            tail = "" if rest is None else f", about {span(rest)} left"
            share = f"{100 * done / total:.0f} % ({done:.0f}/{total:.0f})"
            self._line(f"{self._titles[task]}: {share}{tail}")

    def end(self, task: TaskID, outcome: str, seconds: float) -> None:
        with self._lock:
            self._line(f"{self._titles[task]}: {outcome} in {span(seconds)}")

    def note(self, text: str) -> None:
        with self._lock:
            self._line(text)

    def close(self) -> None:
        pass

    def _line(self, text: str) -> None:
        _print(self._console, f"[{self._clock() - self._began:6.1f}s] {text}")
