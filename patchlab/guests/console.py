# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel says of its own health: console log -> findings.

Formats are those of Linux 6.1 to 6.12 on x86 (kernel/panic.c, arch/x86/kernel/dumpstack.c,
kernel/locking/lockdep.c, mm/kasan/report.c, kernel/rcu/tree_stall.h and so on) and the
shorter WARNING line of later kernels. A heading counts only right after the kernel's time
stamp. Where the log's first "Linux version" line has no stamp, the start of a line counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated

import msgspec

from patchlab.config import toml
from patchlab.errors import LostInstrument
from patchlab.guests import fingerprint
from patchlab.record import Finding, Outcome

FATAL = frozenset({"oops", "panic"})
EXCERPT = 40  # lines
# Of a warning in a loop, the first ten say it all.
REPEATS = 10

# ---------------------------------------------------------------- headings


@dataclass(frozen=True, slots=True)
class _Heading:
    """The first line of a report. ``length`` bounds the report, in lines."""

    kind: str
    pattern: re.Pattern[str]
    length: int
    open_ended: bool  # goes on after its call trace, to a marker of its own


def _heading(kind: str, *patterns: str, length: int = 200, open_ended: bool = False) -> _Heading:
    return _Heading(kind, re.compile("|".join(patterns)), length, open_ended)


_HEADINGS = (
    _heading("panic", r"Kernel panic - not syncing", open_ended=True),
    _heading(
        "oops",
        r"BUG: unable to handle ",
        r"BUG: kernel NULL pointer dereference",
        r"(?:traps: )?BUG: [\w ]+ stack guard page was hit",
        r"(?:traps: )?PANIC: (?:double fault|early exception)",
        r"kernel BUG at \S+:\d+!",
        r"Oops: .*?[0-9a-f]{4} \[#\d+\]",
        r"(?:general protection fault|divide error|invalid opcode|stack segment|double fault"
        r"|stack guard page|int3|bounds|alignment check)(?:,.*)?: [0-9a-f]{4} \[#\d+\]",
        open_ended=True,
    ),
    _heading("kasan", r"BUG: KASAN: ", open_ended=True),
    _heading("kfence", r"BUG: KFENCE: ", open_ended=True),
    _heading("kmsan", r"BUG: KMSAN: ", open_ended=True),
    _heading("kcsan", r"BUG: KCSAN: ", open_ended=True),
    _heading("ubsan", r"UBSAN: ", open_ended=True),
    _heading(
        "lockdep",
        r"WARNING: possible (?:circular locking|recursive locking|irq lock inversion)",
        r"WARNING: \S+-safe -> \S+-unsafe lock order detected",
        r"WARNING: (?:inconsistent lock state|bad unlock balance|bad contention)",
        r"WARNING: (?:held lock freed|lock held when returning|suspicious RCU usage)",
        r"WARNING: (?:Nested lock was not taken|chain_key collision)",
        r"WARNING: .+/\d+ still has locks held",
        r"(?:\[ )?BUG: Invalid wait context",
        r"BUG: (?:sleeping function called from invalid context|using .* in preemptible)",
        r"BUG: (?:scheduling (?:while atomic|in a non-blocking)|assuming (?:atomic|non ))",
        r"BUG: (?:MAX_LOCK|MAX_STACK_TRACE|spinlock |rwlock |key |looking up invalid subclass)",
        r"(?:workqueue: )?BUG: workqueue leaked",
        r"INFO: trying to register non-static key",
    ),
    _heading("rcu stall", r"(?:rcu\w*: )?INFO: rcu\w* (?:self-)?detected (?:expedited )?stall"),
    _heading("hung task", r"INFO: task .+:\d+ blocked (?:in I/O wait )?for more than \d+ sec"),
    _heading("soft lockup", r"(?:watchdog: )?BUG: soft lockup"),
    _heading("hard lockup", r"(?:NMI )?watchdog: (?:CPU\d+: )?Watchdog detected hard LOCKUP"),
    _heading("workqueue lockup", r"(?:workqueue: )?BUG: workqueue lockup"),
    _heading("kmemleak", r"kmemleak: \d+ new suspected memory leaks?", length=1),
    _heading("bad page", r"BUG: Bad rss-counter", length=1),
    _heading("bad page", r"BUG: Bad page "),
    _heading("slab", r"BUG .{1,80} \((?:Not tainted|Tainted: [^)]*)\): ", open_ended=True),
    _heading("list corruption", r"list_(?:add|del) (?:corruption|double add)", open_ended=True),
    _heading("refcount", r"refcount_t: ", open_ended=True),
    _heading(
        "xfs",
        r"XFS(?: \([^)]*\))?: (?:Corruption|Metadata|Internal error|Assertion failed|AGF corruption"
        r"|metadata I/O error|[Ll]og I/O [Ee]rror)",
        length=60,
        open_ended=True,
    ),
    _heading("ext4", r"EXT4-fs error", length=1),
    _heading(
        "oom", r"(?:Out of memory|Memory cgroup out of memory).*: Killed process \d", length=1
    ),
    _heading(
        "warn", r"WARNING: CPU: \d+ PID: \d+ at ", r"WARNING: (?:\S+:\d+ )?at ", open_ended=True
    ),
    _heading("bug", r"(?:watchdog: )?(?:\[ )?BUG: "),
)
KINDS = tuple(dict.fromkeys(heading.kind for heading in _HEADINGS))

_CUT_HERE = re.compile(r"-+\[ cut here \]-+")
_END_MARKER = re.compile(r"---\[ end ")
_BORDER = re.compile(r"={20,}$")
_END_OF_TRACE = re.compile(r" *</TASK>")
_DIE_COUNT = re.compile(r"\[#\d+\]")


def _match(text: str) -> _Heading | None:
    return next((heading for heading in _HEADINGS if heading.pattern.match(text)), None)


# ---------------------------------------------------------------- the kernel's lines

# Colours and cursor moves, window titles, and the two-byte escapes that firmware sends.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# printk.c: "<pri>" for a syslog reader, "[%5lu.%06lu]", "[%6s]" with CONFIG_PRINTK_CALLER.
_STAMP = re.compile(
    r"(?:<\d{1,3}>)?\[ *\d+\.(?:\d{6}\](?:\[ *([CT]\d+)\])?|\d+\]\[ *([CT]\d+)\])(?: |$)"
)
_BARE = re.compile(r"(?:<\d{1,3}>)?(?:\[ *([CT]\d+)\] )?")
_VERSION = re.compile(r"Linux version \d")
_QUOTES = "\"'`("


@dataclass(frozen=True, slots=True)
class _Line:
    number: int  # 1-based
    text: str  # after the stamp
    caller: str  # "T12", "C0", or "" where the kernel does not say
    shown: str


class _Reader:
    """Tells the kernel's lines from everyone else's on the same wire."""

    def __init__(self) -> None:
        self._count = 0
        self._stamped: bool | None = None  # unknown until the kernel says its version

    def read(self, raw: str) -> _Line | None:
        """The kernel's part of the next line, or None where user space or firmware wrote."""
        self._count += 1
        line = self.peek(raw)
        if self._stamped is None and line and _VERSION.match(line.text):
            self._stamped = line.text != line.shown
        return line

    def peek(self, raw: str) -> _Line | None:
        """The same for a line that may not be complete yet."""
        clean = _CONTROL.sub("", _ESCAPE.sub("", raw))
        if self._stamped is not False and (stamp := _stamp(clean)):
            # What stands before the stamp is user space text without a newline.
            caller = stamp[1] or stamp[2] or ""
            return _Line(self._count, clean[stamp.end() :], caller, clean[stamp.start() :])
        if self._stamped:
            return None
        bare = _BARE.match(clean)
        assert bare is not None
        return _Line(self._count, clean[bare.end() :], bare[1] or "", clean[bare.end() :])


def _stamp(line: str) -> re.Match[str] | None:
    for match in _STAMP.finditer(line):
        if match.start() == 0 or line[match.start() - 1] not in _QUOTES:
            return match
    return None


# ---------------------------------------------------------------- known splats


@dataclass(frozen=True, slots=True)
class KnownSplat:
    """A dated exception: findings of ``kind`` whose title or fingerprint has ``pattern``."""

    pattern: re.Pattern[str]
    kind: str
    reason: str
    link: str
    until: date  # the last day on which it holds

    def covers(self, finding: Finding, today: date) -> bool:
        return (
            today <= self.until
            and self.kind == finding.kind
            and any(self.pattern.search(text) for text in (finding.title, finding.fingerprint))
        )


_Day = Annotated[date, msgspec.Meta(description="a date without quotes: 2026-12-31")]


class _SplatTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pattern: str
    kind: str
    reason: str
    link: str
    until: _Day


class _KnownFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    splat: tuple[_SplatTable, ...] = ()


def load_known(file: Path, today: date | None = None) -> tuple[KnownSplat, ...]:
    """Read kernels/known-splats.toml; ``today`` is the host's date unless it is given.

    Raises UsageError with file and line for an entry that does not fit, has no reason or
    link, has ended before ``today``, or would excuse a crash.
    """
    document, day = toml.read(file, _KnownFile), today or date.today()
    return tuple(
        _known(document, index, table, day) for index, table in enumerate(document.table.splat)
    )


def _known(
    document: toml.Document[_KnownFile], index: int, table: _SplatTable, today: date
) -> KnownSplat:
    def error(key: str, what: str, hint: str) -> Exception:
        return document.error(("splat", index, key), f"{table.pattern!r}: {what}", hint=hint)

    for key in ("pattern", "reason", "link"):
        if not getattr(table, key).strip():
            raise error(key, f"'{key}' is empty", f"an exception without a {key} is not one")
    if table.kind in FATAL:
        raise error("kind", f"{table.kind} cannot be excused", "a dead kernel is not a known splat")
    if table.kind not in KINDS:
        raise error("kind", f"no such kind: {table.kind}", f"kinds: {', '.join(KINDS)}")
    if table.until < today:
        raise error("until", f"ended on {table.until}", "delete it, or prove that it is still due")
    try:
        pattern = re.compile(table.pattern)
    except re.error as bad:
        raise error("pattern", f"not a regular expression: {bad}", "see Python's re") from None
    return KnownSplat(pattern, table.kind, table.reason, table.link, table.until)


# ---------------------------------------------------------------- reports


@dataclass(frozen=True, slots=True)
class _Report:
    lines: tuple[_Line, ...]  # heading first
    joined: frozenset[int]  # numbers of lines that look like headings but belong to this one


def scan(
    lines: Iterable[str], known: Sequence[KnownSplat] = (), today: date = date.max
) -> tuple[Finding, ...]:
    """Every report in a console log, in order; never raises.

    A WARN with its message and trace is one finding, as is an oops with its die line; a panic
    after an oops is one more. ``today`` decides which of ``known`` still hold; without it
    none does. Of one fingerprint at most REPEATS findings are kept.
    """
    reader = _Reader()
    kernel = [line for raw in lines if (line := reader.read(raw))]
    headings = [_match(line.text) for line in kernel]
    joined: set[int] = set()
    times: Counter[str] = Counter()
    findings = []
    for place, heading in enumerate(headings):
        if heading is None or kernel[place].number in joined:
            continue
        report = _report(kernel, headings, place, heading)
        joined |= report.joined
        finding = _finding(heading.kind, report, _lead(kernel, place))
        times[finding.fingerprint] += 1
        if times[finding.fingerprint] <= REPEATS:
            reason = next((k.reason for k in known if k.covers(finding, today)), "")
            findings.append(replace(finding, known=reason))
    return tuple(findings)


def worst(findings: Iterable[Finding]) -> Outcome:
    """CRASHED for an oops or a panic, SPLAT for anything else that is not known, else PASSED."""
    kinds = {finding.kind for finding in findings if not finding.known or finding.kind in FATAL}
    if kinds & FATAL:
        return Outcome.CRASHED
    return Outcome.SPLAT if kinds else Outcome.PASSED


def require_kernel_log(lines: Iterable[str]) -> None:
    """Raises LostInstrument when a guest that was up left no log that can be scanned."""
    text = [line for line in lines if line.strip()]
    hint = "the guest's command line needs console=ttyS0 and loglevel=7, without quiet"
    if not text:
        raise LostInstrument("the console log is empty: nothing could be scanned", hint=hint)
    if not any(_VERSION.search(line) for line in text):
        what = f'none of the {len(text)} lines of the console log says "Linux version"'
        raise LostInstrument(f"{what}: it is not a kernel's log", hint=hint)


def _report(
    kernel: Sequence[_Line], headings: Sequence[_Heading | None], place: int, heading: _Heading
) -> _Report:
    """The lines from a heading to its end marker, those of other CPUs and tasks left out."""
    first = kernel[place]
    body, joined, cut = [first], set[int](), 0
    for offset in range(place + 1, min(place + heading.length, len(kernel))):
        line, other = kernel[offset], headings[offset]
        if first.caller and line.caller != first.caller and heading.kind not in fingerprint.STALLS:
            continue
        if _BORDER.match(line.text):
            break
        if _CUT_HERE.match(line.text):
            cut = len(body)
        if other:
            if not _belongs(heading.kind, other.kind, line, body):
                body = body[:cut] if cut else body
                break
            joined.add(line.number)
            cut = 0
        body.append(line)
        if _END_MARKER.match(line.text) or (
            _END_OF_TRACE.match(line.text) and not heading.open_ended
        ):
            break
    return _Report(tuple(body), frozenset(joined))


def _belongs(kind: str, other: str, line: _Line, body: Sequence[_Line]) -> bool:
    """Whether a heading inside an open report is part of it."""
    if kind == other == "oops":
        counted = any(_DIE_COUNT.search(seen.text) for seen in body)
        return not counted and bool(_DIE_COUNT.search(line.text))
    if kind == other == "xfs":
        return ": Corruption" in line.text
    if other == "warn":
        # WARN() says its message first; slub.c ends a report with a WARN of its own.
        return (kind in ("refcount", "list corruption") and len(body) <= 3) or (
            kind == "slab" and " at mm/slub.c:" in line.text
        )
    return kind == other == "panic" or (kind == "warn" and other == "refcount" and len(body) <= 3)


def _lead(kernel: Sequence[_Line], place: int) -> tuple[_Line, ...]:
    """What WARN() was told to say: the lines between "cut here" and the heading."""
    for start in range(place - 1, max(place - 6, -1), -1):
        if _CUT_HERE.match(kernel[start].text):
            return tuple(kernel[start + 1 : place])
        if _END_MARKER.match(kernel[start].text):
            break
    return ()


def _finding(kind: str, report: _Report, lead: tuple[_Line, ...]) -> Finding:
    first = report.lines[0]
    title = first.text.strip()[:200]
    excerpt = tuple(line.shown.rstrip() for line in (*lead, *report.lines)[:EXCERPT])
    texts = [line.text for line in report.lines]
    return Finding(kind, title, first.number, fingerprint.of(kind, title, texts), excerpt)


# ---------------------------------------------------------------- while the guest runs


class Watch:
    """Follows a console as it grows, so that nobody waits for a dead guest."""

    _LONGEST = 8192  # bytes kept of a line that does not end

    def __init__(self) -> None:
        self._reader = _Reader()
        self._open = b""
        self._told: set[str] = set()

    def feed(self, chunk: bytes) -> str:
        """``"panic"`` or ``"oops"`` the first time that it is seen, else ``""``.

        Chunks may end anywhere; a heading counts before its line is complete. Of two in one
        chunk, panic is told.
        """
        *whole, self._open = (self._open + chunk).split(b"\n")
        seen = [self._reader.read(raw.decode("utf-8", "replace")) for raw in whole]
        seen.append(self._reader.peek(self._open.decode("utf-8", "replace")))
        if len(self._open) > self._LONGEST:
            # The mark keeps what is left from passing for the start of a line.
            self._open = b"~" + self._open[-self._LONGEST // 2 :]
        kinds = {heading.kind for line in seen if line and (heading := _match(line.text))}
        new = (kinds & FATAL) - self._told
        self._told |= new
        return max(new, default="")
