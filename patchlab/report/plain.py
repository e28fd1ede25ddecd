# SPDX-License-Identifier: GPL-2.0-or-later
"""What a terminal shows, as text for a pipe or a file."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console, RenderableType

WIDTH = 100


def render(parts: Iterable[RenderableType], width: int = WIDTH) -> str:
    """Plain text without colours, at most ``width`` columns wide."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    for part in parts:
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"
