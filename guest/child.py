# SPDX-License-Identifier: GPL-2.0-or-later
"""One piece of work in a process of its own, so that it may hang, crash or leak."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

_GRACE = 5.0  # seconds to wait for a killed process; one that sits in the kernel may stay
_STACK_LINES = 12


@dataclass(frozen=True, slots=True)
class Ended:
    """How it went. ``value`` is what the work returned, None if it never did."""

    value: Any
    error: str  # the traceback's last lines, or the signal that it died of
    timed_out: bool
    where: str  # of a timed out one: where in the kernel it sat
    seconds: float


def run(work: Callable[[], Any], deadline: float | None) -> Ended:
    """Runs ``work`` in a forked child with a process group of its own.

    What it returns must be JSON. The group is killed in any case, so nothing that the work
    started outlives it. ``deadline`` is in seconds on the guest's clock; None waits for ever.
    """
    reading, writing = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(work, writing)
    os.close(writing)
    process = os.pidfd_open(pid)
    try:
        report, timed_out = _collect(reading, process, deadline)
        seconds = time.monotonic() - started
        where = _where(pid) if timed_out else ""
        # Still a child of ours, so its id cannot have been given to another process.
        _kill_group(pid)
        status = _reap(pid, process)
    finally:
        os.close(process)
        os.close(reading)
    if report is not None:
        return Ended(report.get("value"), report.get("error", ""), False, "", seconds)
    return Ended(None, "" if timed_out else _died(status), timed_out, where, seconds)


def _child(work: Callable[[], Any], writing: int) -> NoReturn:
    os.setpgid(0, 0)
    try:
        report = {"value": work()}
    except BaseException:
        report = {"error": "".join(traceback.format_exc().splitlines(keepends=True)[-12:])}
    # Report first: a process that holds a file of a mount may hang in exit.
    data = json.dumps(report).encode() + b"\n"
    while data:
        data = data[os.write(writing, data) :]
    os._exit(0)


def _collect(
    reading: int, process: int, deadline: float | None
) -> tuple[dict[str, Any] | None, bool]:
    """The report, or None; and whether the deadline passed before there was one."""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    poll.register(process, select.POLLIN)
    limit = None if deadline is None else time.monotonic() + deadline
    data = bytearray()
    while not data.endswith(b"\n"):
        left = None if limit is None else max(0.0, limit - time.monotonic()) * 1000
        ready = dict(poll.poll(left))
        if not ready:
            return None, True
        # The pipe's end says nothing (a grandchild may hold it), so the process is watched
        # too; what it wrote before it died is read first.
        if reading in ready:
            got = os.read(reading, 1 << 16)
            data += got
            if not got:
                poll.unregister(reading)
        elif process in ready:
            return None, False
    return json.loads(data), False


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # before its setpgid there is no such group
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def _reap(pid: int, process: int) -> int | None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    if not poll.poll(_GRACE * 1000):
        return None
    return os.waitpid(pid, 0)[1]


def _died(status: int | None) -> str:
    if status is None:
        return "the process neither reported nor ended"
    if os.WIFSIGNALED(status):
        return f"the process died of {signal.Signals(os.WTERMSIG(status)).name}"
    return f"the process ended with code {os.WEXITSTATUS(status)} without a report"


def _where(pid: int) -> str:
    try:
        lines = Path(f"/proc/{pid}/stack").read_text().splitlines()[:_STACK_LINES]
    except OSError:
        return ""
    return "\n".join(lines)
