# SPDX-License-Identifier: GPL-2.0-or-later
"""One file a verb. A new verb is a new file and one line here.

A verb's module is imported when it is asked for: what the others need takes longer than most.
"""

from __future__ import annotations

import importlib
from types import ModuleType

VERBS = {
    "doctor": "doctor",
    "list": "list_",
    "build": "build",
    "boot": "boot",
    "check": "check",
    "bench": "bench",
    "plan": "plan",
    "run": "run",
    "calibrate": "calibrate",
    "compare": "compare",
    "report": "report",
    "shell": "shell",
    "gdb": "gdb",
    "gc": "gc",
}


def load(verb: str) -> ModuleType:
    """The module of a verb: HELP, EXAMPLE, arguments(parser), run(args, desk)."""
    return importlib.import_module(f"{__name__}.{VERBS[verb]}")
