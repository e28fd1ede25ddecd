# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel says of its own health, and what it still holds: log, lockdep, leaks.

Everything here is read, never switched on; a kernel that lacks an instrument is asked nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from guest.words import CheckError

LOCKDEP = Path("/proc/lockdep")
LOCKDEP_STATS = Path("/proc/lockdep_stats")
KMEMLEAK = Path("/sys/kernel/debug/kmemleak")
_CONNECTIONS = Path("/sys/fs/fuse/connections")
_SHMEM_INODES = Path("/sys/kernel/slab/shmem_inode_cache")
_MIN_AGE = 5.0  # seconds; MSECS_MIN_AGE of mm/kmemleak.c
_PF_KTHREAD = 0x00200000  # linux/sched.h
_EXCERPT = 25  # lines
_SETTLE = 10.0  # seconds that RCU, task work and the last exits are given

# First lines of reports: kernel/panic.c, lockdep.c, sched/core.c, hung_task.c, mm/kasan.
_SPLAT = re.compile(
    r"(?:\w+: |\[ )?(?:WARNING: |BUG: |BUG \S+ .*: |INFO: task .* blocked |Oops: )|UBSAN: |"
    r"kernel BUG at |Kernel panic |general protection fault|refcount_t: |DEBUG_LOCKS_WARN_ON|"
    r"list_(?:add|del) (?:corruption|double add)|(?:rcu\w*: )?INFO: rcu\w* .*detected .*stall|"
    r"ODEBUG: |INFO: trying to register non-static key|kmemleak: \d+ new suspected "
)


# ---------------------------------------------------------------- the log


def splats(lines: Iterable[str]) -> list[str]:
    """The first lines of reports among the texts of log records."""
    return [one for one in lines if _SPLAT.match(one)]


def excerpt(lines: list[str]) -> list[str]:
    """The first report with what follows it; nothing of a clean log."""
    found = splats(lines)
    at = lines.index(found[0]) if found else 0
    return ["the kernel log says", *lines[at : at + _EXCERPT]] if found else []


def record_text(record: str) -> str:
    """The text of one /dev/kmsg record (Documentation/ABI/testing/dev-kmsg), "" of user space's."""
    head, _, rest = record.partition(";")
    priority = head.partition(",")[0]
    # The facility is what is above the lowest three bits; the kernel's own is 0.
    kernel = priority.isdecimal() and int(priority) >> 3 == 0
    return rest.partition("\n")[0] if kernel else ""


class Log:
    """The kernel's log from a position on."""

    def __init__(self, *, whole: bool = False) -> None:
        self._file = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._file, 0, os.SEEK_SET if whole else os.SEEK_END)

    def lines(self) -> list[str]:
        """What was logged since the last call."""
        found = []
        while True:
            try:
                found.append(record_text(os.read(self._file, 1 << 14).decode("utf-8", "replace")))
            except BlockingIOError:
                return [one for one in found if one]
            except OSError as error:
                if error.errno != errno.EPIPE:  # EPIPE: some were overwritten before we came
                    raise

    def require_clean(self, what: str) -> None:
        """Raises CheckError with the first report since the last call."""
        if found := excerpt(self.lines()):
            raise CheckError("\n".join((f"{what}: not clean:", *found)))

    def close(self) -> None:
        os.close(self._file)


def lockdep_on() -> bool:
    """True while lockdep still looks: after its first report it does not."""
    match = re.search(r"debug_locks:\s+(\d+)", LOCKDEP_STATS.read_text())
    return match is not None and match[1] == "1"


# ---------------------------------------------------------------- what is held


@dataclass(frozen=True, slots=True)
class Held:
    """What the kernel holds: descriptors of this process, then counts of the whole machine."""

    fds: int
    shmem_kb: int
    shmem_inodes: int  # -1 where they cannot be counted
    connections: tuple[str, ...]


def held() -> Held:
    return Held(len(os.listdir("/proc/self/fd")), _shmem(), _shmem_inodes(), tuple(_connections()))


def differences(before: Held, after: Held) -> list[str]:
    """What there is more of, one line each. Less is no leak: others let go of theirs."""
    found = []
    for one in fields(Held):
        old, new = getattr(before, one.name), getattr(after, one.name)
        more = set(new) - set(old) if one.name == "connections" else new > old
        if more:
            found.append(f"{one.name.replace('_', ' ')}: {old} before, {new} after")
    return found


def require_same(before: Held, what: str, seconds: float = _SETTLE) -> Held:
    """Waits until nothing is held beyond ``before``; CheckError after ``seconds``."""
    limit = time.monotonic() + seconds
    while True:
        now = held()
        found = differences(before, now)
        if not found:
            return now
        if time.monotonic() > limit:
            raise CheckError(f"{what} left behind: {'; '.join(found)}")
        time.sleep(0.1)


def _shmem() -> int:
    # The counters are kept per CPU; this folds them first.
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/stat_refresh").write_text("1")
    text = Path("/proc/meminfo").read_text()
    match = re.search(r"^Shmem:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) if match else 0


def _shmem_inodes() -> int:
    # Kernel-internal shmem files are in no mount's statfs. The cache has a constructor, so it is
    # merged with no other; a shrink gives back what CPUs and KASAN's quarantine hold.
    try:
        (_SHMEM_INODES / "shrink").write_text("1")
        return int((_SHMEM_INODES / "objects").read_text().split()[0])
    except OSError:
        return -1


def _connections() -> list[str]:
    try:
        return sorted(one.name for one in _CONNECTIONS.iterdir())
    except OSError:
        return []


def waiting(connection: str) -> int:
    """Requests that wait on a FUSE connection; 0 when it is gone."""
    try:
        return int((_CONNECTIONS / connection / "waiting").read_text())
    except (OSError, ValueError):
        return 0


def stuck() -> list[str]:
    """Processes of user space that sit in the D state: name, pid, where.

    /proc/PID/cmdline is not asked: it waits for the lock that a client holds in mmap.
    """
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            name, _, rest = (folder / "stat").read_text().rpartition(")")
            state, flags = rest.split()[0], int(rest.split()[6])
            if state == "D" and not flags & _PF_KTHREAD:
                where = (folder / "stack").read_text().split("\n")[:5]
                found.append(f"{name.partition('(')[2]} {folder.name}: {' '.join(where)}")
    return found


def require_none_stuck(what: str, seconds: float = _SETTLE) -> None:
    """CheckError when a process is still in the D state after ``seconds``."""
    limit = time.monotonic() + seconds
    while found := stuck():
        if time.monotonic() > limit:
            raise CheckError(f"{what} left in the D state: {'; '.join(found)}")
        time.sleep(0.2)


# ---------------------------------------------------------------- kmemleak


def leaks(report: str) -> dict[str, str]:
    """A kmemleak report, taken apart: address to text, one entry an object."""
    blocks = re.split(r"^(?=unreferenced object )", report, flags=re.MULTILINE)
    return {one.split()[2]: one.rstrip() for one in blocks if one.startswith("unreferenced")}


class Leaks:
    """What kmemleak finds between the making of this and ``require_none``.

    Nothing is cleared, so that a later look at the whole boot still sees what was found here.
    """

    def __init__(self) -> None:
        self.there = KMEMLEAK.exists()
        self._old = set(leaks(KMEMLEAK.read_text())) if self.there else set()

    def require_none(self, what: str, names: str = "fuse|cuse|shmem") -> str:
        """Scans; CheckError when a new leak's stack has one of ``names``. Says what was done."""
        if not self.there:
            return "no kmemleak here"
        began = time.monotonic()
        new = {at: text for at, text in scanned().items() if at not in self._old}
        took = f"({time.monotonic() - began:.0f} s)"
        guilty = [text for text in new.values() if re.search(names, text)]
        if guilty:
            raise CheckError(f"{what} leaked {len(guilty)} objects:\n" + "\n".join(guilty[:3]))
        return f"kmemleak finds {f'{len(new)} of other making' if new else 'nothing'} {took}"


def scanned() -> dict[str, str]:
    """All leaks after two scans: the first only takes the checksums of what is new."""
    time.sleep(_MIN_AGE + 1)
    for _ in range(2):
        KMEMLEAK.write_text("scan")
    return leaks(KMEMLEAK.read_text())
