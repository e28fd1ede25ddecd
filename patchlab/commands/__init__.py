# SPDX-License-Identifier: GPL-2.0-or-later
"""One file a verb. A new verb is a new file and one line here."""

from __future__ import annotations

from types import ModuleType

from patchlab.commands import (
    bench,
    boot,
    build,
    check,
    compare,
    doctor,
    gc,
    gdb,
    list_,
    plan,
    report,
    run,
    shell,
)

VERBS: dict[str, ModuleType] = {
    "doctor": doctor,
    "list": list_,
    "build": build,
    "boot": boot,
    "check": check,
    "bench": bench,
    "plan": plan,
    "run": run,
    "compare": compare,
    "report": report,
    "shell": shell,
    "gdb": gdb,
    "gc": gc,
}
