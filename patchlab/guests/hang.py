# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done with a guest that ran past a deadline: it is made to say where it hangs, and ended.

In this order, and each step with a limit: a mark in the console; over SSH, SysRq-w and -t; when
nobody answers there, an NMI, at which the kernel panics and lists its tasks
(``unknown_nmi_panic``, Documentation/admin-guide/kernel-parameters.txt), which also works with
interrupts off on every vCPU; SIGTERM; SIGKILL. What the console gets after the first mark is
the lab's doing and no finding.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchlab.errors import LostInstrument
from patchlab.guests.guest import Console, Guest, GuestCrashed, GuestTimedOut
from patchlab.guests.vigil import Vigil, family

# Kernel options of a guest that can be asked by an NMI. 0x41: every task, every CPU's stack.
NMI_OPTIONS = ("unknown_nmi_panic", "panic_print=0x41")

_QMP = 3.0  # seconds for one step of the monitor's protocol
_SILENT = 10.0  # seconds without a byte in the console: nothing more will come
_LISTING = 90.0  # seconds for a task list through a slow serial line
_TERMINATE = 5.0
# From its deadline to its end, of a guest that answers nothing: greeting, capabilities, the NMI.
UNANSWERED = 3 * _QMP + _SILENT + _TERMINATE


@dataclass(frozen=True, slots=True)
class Suspect:
    """A guest that is late, and every way to reach it. ``guest`` is None before SSH is up."""

    console: Console
    qemu: subprocess.Popen[bytes]
    vigil: Vigil
    monitor: Path  # QEMU's QMP socket
    guest: Guest | None = None
    nmi: bool = True  # its kernel was started with NMI_OPTIONS


def escalate(late: GuestTimedOut, suspect: Suspect) -> Exception:
    """End the guest and give what its boot ended with.

    GuestTimedOut says how far this had to go; LostInstrument, that QEMU or the host was kept
    from working in the time that ran out; GuestCrashed, that the kernel was dead already.
    """
    console = suspect.console
    if fatal := console.look():
        return GuestCrashed(f"{fatal} {late}")
    heard = console.mark(f"deadline passed: {late}")
    if why := suspect.vigil.blame(late.waited):
        console.mark(f"{why}: the guest is not to blame; killing QEMU")
        return LostInstrument(
            f"{why}: {late}",
            hint="a lost boot is tried again once; a host that is always so busy needs longer "
            "[limits] in lab.toml",
        )
    said = _tasks(late, suspect)
    ended = _end(suspect)
    return GuestTimedOut(f"{late}; {said}; {ended}", late.waited, heard)


def _tasks(late: GuestTimedOut, suspect: Suspect) -> str:
    """Make the guest list its tasks; how that went."""
    if suspect.guest:
        suspect.console.mark("asking for its tasks over SSH")
        if suspect.guest.marker(f"deadline passed: {late}"):
            return "it listed its tasks over SSH"
    over = "SSH was dead" if suspect.guest else "there was no SSH yet"
    if suspect.qemu.poll() is not None or not suspect.nmi:
        return over
    suspect.console.mark(f"{over}: asking for its tasks by an NMI")
    try:
        command(suspect.monitor, "inject-nmi")
    except (OSError, ValueError) as error:
        suspect.console.mark(f"QEMU's monitor failed: {error}")
        return f"{over}, and QEMU's monitor failed ({error})"
    if _panicked(suspect):
        return f"{over}, an NMI made it list its tasks"
    return f"{over}, and it did not answer an NMI"


def _panicked(suspect: Suspect) -> bool:
    """Wait for the kernel's last words: it ends QEMU itself, or falls silent."""
    limit = time.monotonic() + _LISTING
    size, changed = suspect.console.size(), time.monotonic()
    while suspect.qemu.poll() is None and time.monotonic() < min(limit, changed + _SILENT):
        time.sleep(0.1)
        if (now := suspect.console.size()) != size:
            size, changed = now, time.monotonic()
    return suspect.console.look() == "panic"


def _end(suspect: Suspect) -> str:
    if suspect.qemu.poll() is not None:
        return "QEMU ended by itself"
    suspect.console.mark("terminating QEMU")
    # The last of the family is QEMU: a signal to the box would kill it without a word.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(family(suspect.qemu.pid)[-1], signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        suspect.qemu.wait(_TERMINATE)
        return "QEMU was terminated"
    suspect.console.mark("killing QEMU")
    return "QEMU had to be killed"


def command(monitor: Path, name: str, patience: float = _QMP) -> Any:
    """One command of QEMU's machine protocol, without arguments; what it returned.

    Raises OSError (nobody answers in ``patience`` seconds), ValueError (refused, or no JSON).
    """
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(patience)
        wire.connect(str(monitor))
        with wire.makefile("rw", encoding="utf-8") as lines:
            lines.readline()  # the greeting
            for one in ("qmp_capabilities", name):
                lines.write(json.dumps({"execute": one}) + "\n")
                lines.flush()
                answer = _answer(lines)
            return answer


def _answer(lines: Any) -> Any:
    for _ in range(100):  # events come in between
        if not (line := lines.readline()):
            raise ConnectionError("it closed the connection")
        document = json.loads(line)
        if "return" in document:
            return document["return"]
        if "error" in document:
            raise ValueError(str(document["error"].get("desc", ""))[:200])
    raise ValueError("events and no answer")
