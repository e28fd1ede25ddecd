# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of figures. A new one is a new module and one entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.cold_build import cold_build
from benchmarks.edit import edit
from benchmarks.first_reply import first_reply
from benchmarks.growth import growth
from benchmarks.record import Found
from benchmarks.two_guests import two_guests
from benchmarks.variant import variant
from benchmarks.warm_run import warm_run


@dataclass(frozen=True, slots=True)
class Figure:
    """``take`` raises LabError when the figure cannot be taken, and says why."""

    title: str
    take: Callable[[Bench], Found]


FIGURES: dict[str, Figure] = {
    "cold-build": Figure("A cold build of the base, against vng's defaults", cold_build),
    "variant": Figure("A variant from its built base", variant),
    "first-reply": Figure("From QEMU's start to the agent's first reply", first_reply),
    "two-guests": Figure("Two guests at once, in icount mode", two_guests),
    "warm-run": Figure("What is neither QEMU nor make in a warm run", warm_run),
    "edit": Figure("From an edit to its verdict", edit),
    "growth": Figure("Cost as the work grows", growth),
}
EDIT = "edit"  # the one with a timeline
EDIT_AIM = 180.0  # seconds
