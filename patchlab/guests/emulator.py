# SPDX-License-Identifier: GPL-2.0-or-later
"""Crashes that QEMU's translator caused, and no kernel: the boot is lost, and is made again."""

from __future__ import annotations

import re
from collections.abc import Sequence

from patchlab.guests.console import FATAL
from patchlab.record import Clock, Finding

_INT3 = re.compile(r"(?:Oops: )?int3: [0-9a-f]{4} \[#1\]")
_WHERE = re.compile(r"RIP: 0010:(\S+)")
# show_opcodes() of arch/x86/kernel/dumpstack.c: the bytes around regs->ip, that one in <>.
_BEFORE = re.compile(r"Code:.* ([0-9a-f]{2}) <[0-9a-f]{2}>")
_BREAKPOINT = "cc"


def blame(findings: Sequence[Finding], clock: Clock) -> str:
    """Why the first fatal finding says nothing of the kernel, or ``""``. Pure.

    The kernel puts a breakpoint before an instruction that it patches, makes every CPU
    synchronize, and takes it away again (text_poke_bp_batch() of arch/x86/kernel/alternative.c).
    With a thread for each vCPU, QEMU before 8.1 can translate the page while it is written to,
    and runs the breakpoint once more when it has gone: ``int3``, and the byte before the
    reported instruction is none (https://bugzilla.redhat.com/show_bug.cgi?id=2216496). No CPU
    does that, so under KVM it is the kernel's. A breakpoint that is still there is, too.
    """
    first = next((finding for finding in findings if finding.kind in FATAL), None)
    if clock is not Clock.TCG or first is None or not _INT3.match(first.title):
        return ""
    text = "\n".join(first.excerpt)
    before = _BEFORE.search(text)
    if before is None or before[1] == _BREAKPOINT:
        return ""
    where = _WHERE.search(text)
    return (
        "QEMU ran a breakpoint that the kernel had taken away"
        f"{f' at {where[1]}' if where else ''}: a fault of the emulator before 8.1"
    )
