# SPDX-License-Identifier: GPL-2.0-or-later
"""One line for one kernel bug, the same at every address, with every number and time stamp."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

FRAMES = 5
# Kinds whose traces come from the stalled CPU's NMI handler, not from the one that complains.
STALLS = frozenset({"rcu stall", "soft lockup", "hard lockup", "workqueue lockup"})

_FRAME = re.compile(
    r" *(\? )?([A-Za-z_][\w.$]*)(?:\+0x[0-9a-f]+/0x[0-9a-f]+| \([^()]*:\d+\))(?: |$)"
)
_RIP = re.compile(r"(?:RIP: 0010:|pc : )([A-Za-z_][\w.$]*)")
_TRACE = re.compile(r"Call [Tt]race:")
_MARKER = re.compile(r" *<(/?)(\w+)>\s*$")
_SUFFIX = re.compile(r"\.(?:isra|constprop|part|cold|llvm|lto_priv)\b|\.\d+")
# Not the 4 of EXT4 or of ext4_find_entry, but that of pmem4.
_NUMBER = re.compile(r"(?<![A-Za-z_])(?:0x[0-9a-f]+|-?[0-9a-f]*\d[0-9a-f]*)|(?<=[a-z])\d+(?=\W)")
# Functions that report, and those that every trace of their kind has on top.
_HELPER = re.compile(
    r"(?:_*dump_stack(?:_lvl)?|_*show_(?:stack|regs|trace)\w*|end_report"
    r"|print_\w*(?:report|bug|description|context)"
    r"|(?:__)?k[am]san_\w+|__(?:a|m|t)san_\w+|kfence_\w+"
    r"|__warn\w*|warn_slowpath\w*|report_bug|handle_bug|asm_exc_\w+|exc_\w+|asm_sysvec_\w+"
    r"|panic|vpanic|die|_*die_\w+|__die|oops_\w+|page_fault_oops|\w*_error_trap|do_trap\w*"
    r"|check_panic_on_warn|kernelmode_fixup_or_oops|__bad_area\w*|bad_area\w*|no_context"
    r"|ubsan_\w+|__ubsan_\w+|handle_overflow"
    r"|__schedule(?:_bug)?|schedule\w*|io_schedule\w*|preempt_schedule\w*|__might_\w+"
    r"|_*lock_acquire\w*|validate_chain|check_\w*(?:circular|prev\w*|deadlock)"
    r"|mark_lock\w*|mark_usage|lockdep_\w+|debug_\w+|print_\w*usage\w*|valid_state"
    r"|lock_release|lock_is_held\w*|check_preemption_disabled|debug_smp_processor_id"
    r"|(?:slab|object)_err\w*|print_trailer|check_(?:object|bytes\w*)|bad_page\w*|dump_page"
    r"|free_page_is_bad\w*|print_bad_pte|free_debug_processing|alloc_debug_processing"
    r"|refcount_warn_saturate|__list_\w+_or_report|xfs_\w*corruption_error|xfs_error_report"
    r"|ass(?:fail|warn)|dump_header|nmi_(?:cpu|trigger)\w*_backtrace\w*|native_queued_spin_lock_slowpath)$"
)


def of(kind: str, title: str, texts: Sequence[str]) -> str:
    """``kind: inner < outer < …``: the function at fault and its callers, FRAMES in all.

    ``texts`` are a report's lines after the stamp, heading first. The x86 trace of an oops or
    a WARN leaves out the function at fault, so RIP's comes first. Helpers, doubtful frames
    ("? "), offsets and compiler suffixes are dropped. Without a trace, the title stands in,
    its numbers removed.
    """
    frames = [name for name in _frames(kind, texts) if not _HELPER.match(name)]
    if frames:
        return f"{kind}: {' < '.join(frames[:FRAMES])}"
    return f"{kind}: {_NUMBER.sub('#', title)}"


def _frames(kind: str, texts: Sequence[str]) -> list[str]:
    start = next((place for place, text in enumerate(texts) if _TRACE.match(text)), -1)
    if start < 0:  # KFENCE, KMSAN and KCSAN print bare frames
        start = next((p for p, text in enumerate(texts[1:]) if _FRAME.match(text)), len(texts))
    rip = next((match for text in texts[:start] if (match := _RIP.match(text))), None)
    frames = list(_trace(texts[start + 1 :], kind in STALLS))
    fault = [_SUFFIX.sub("", rip[1])] if rip else []
    return frames if fault == frames[:1] else fault + frames


def _trace(texts: Sequence[str], stalled: bool) -> Iterable[str]:
    """The sure frames of one call trace. In a stall's, interrupts only tell who looked."""
    skipped = {"NMI", "IRQ"} if stalled else {"NMI"}
    inside, foreign = "", 0
    for text in texts:
        if marker := _MARKER.match(text):
            if marker[1] and marker[2] == "TASK":
                return
            inside = "" if marker[1] else marker[2]
        elif frame := _FRAME.match(text):
            if not frame[1] and inside not in skipped:
                yield _SUFFIX.sub("", frame[2])
        elif not text.strip() or (text[0] != " " and (foreign := foreign + 1) > 2):
            return
