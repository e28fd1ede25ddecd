# SPDX-License-Identifier: GPL-2.0-or-later
"""How long steps tell how far they are. Rooms report; commands/ui.py shows."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Step(Protocol):
    """One long step. ``done`` and ``total`` are in the step's own unit."""

    def advance(self, done: float, total: float) -> None: ...


class Progress(Protocol):
    """Where rooms tell what goes on. Every method may be called from any thread."""

    def step(self, title: str) -> AbstractContextManager[Step]:
        """A step that takes more than a second; its end is shown with the time it took."""
        ...

    def note(self, text: str) -> None:
        """One line that stays."""
        ...


class _SilentStep:
    def advance(self, done: float, total: float) -> None:
        pass


class Silent:
    """Shows nothing: for tests and for callers that print a result only."""

    def step(self, title: str) -> AbstractContextManager[Step]:  # noqa: ARG002
        return nullcontext(_SilentStep())

    def note(self, text: str) -> None:
        pass
