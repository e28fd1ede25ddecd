# SPDX-License-Identifier: GPL-2.0-or-later
"""The N-th chance to fail inside one system call fails: /proc/thread-self/fail-nth.

Documentation/fault-injection/fault-injection.rst. Slab and page allocations and copies from and to
user space count in one sequence. The write that arms it, the call and the read that asks whether
it went off are three calls of libc with everything made beforehand; what Python adds in between
(a page fault, perhaps) is what the enumeration of a call that does nothing shows.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from guest import health
from guest.libc import PAGE
from guest.words import CheckError, Unsupported

FAIL_NTH = Path("/proc/thread-self/fail-nth")
SYS_FORK = 57  # x86_64
_DEBUG = Path("/sys/kernel/debug")
_LAST = 1000  # a call with more chances than this has no end
_MADV_DONTFORK = 10

# What each injector is set to. verbose=1 names the injector in the log, in one line each.
_COMMON = {"probability": "0", "times": "-1", "verbose": "1", "verbose_ratelimit_interval_ms": "0"}
_SETTINGS = {
    "failslab": {**_COMMON, "ignore-gfp-wait": "0"},
    "fail_page_alloc": {
        **_COMMON, "ignore-gfp-wait": "0", "ignore-gfp-highmem": "0", "min-order": "0",
    },
    "fail_usercopy": _COMMON,
}  # fmt: skip
_SYSCTLS = {
    # Notices, which name the injectors, stay off the console; warnings do not.
    Path("/proc/sys/kernel/printk"): "5",
    # The child of a fork that inherits nothing dies of SIGSEGV, each time.
    Path("/proc/sys/debug/exception-trace"): "0",
}
_NAMED = re.compile(r"FAULT_INJECTION: .*?(?:\\x0a|\s)name (\w+)")


def wanted() -> None:
    """Raises Unsupported on a kernel without fail-nth."""
    if not FAIL_NTH.exists():
        raise Unsupported("the kernel has no /proc/thread-self/fail-nth (FAULT_INJECTION)")


@contextlib.contextmanager
def injectors() -> Iterator[list[str]]:
    """All three are ready to fail; yields their names. As before afterwards."""
    files = [
        (_DEBUG / name / key, value)
        for name, settings in _SETTINGS.items()
        for key, value in settings.items()
    ]
    undo: list[tuple[Path, str]] = []
    try:
        for path, value in (*files, *_SYSCTLS.items()):
            if path.exists():
                undo.append((path, path.read_text().split()[0]))
                path.write_text(value)
        yield [name for name in _SETTINGS if (_DEBUG / name).is_dir()]
    finally:
        for path, value in reversed(undo):
            path.write_text(value)


# ---------------------------------------------------------------- one shot

# Without the lock's release and retake that CDLL puts around each call.
_libc = ctypes.PyDLL(None, use_errno=True)
_pwrite, _pread = _libc.pwrite, _libc.pread
_pwrite.argtypes = _pread.argtypes = (
    ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long,
)  # fmt: skip
_pwrite.restype = _pread.restype = ctypes.c_ssize_t


def function(name: str, result: type, *arguments: type) -> Callable[..., int]:
    """A function of libc, looked up before it is needed."""
    found = getattr(_libc, name)
    found.restype, found.argtypes = result, arguments
    return found  # type: ignore[no-any-return]


_long, _pointer, _size, _int = ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
mmap = function("mmap", _long, _pointer, _size, _int, _int, _int, _long)
munmap = function("munmap", _long, _pointer, _size)
mremap = function("mremap", _long, _pointer, _size, _size, _int)
read = function("read", _long, _int, _pointer, _size)
write = function("write", _long, _int, _pointer, _size)
syscall = function("syscall", _long, _long)
nothing = function("getppid", _long)


class Trigger:
    """Arms this thread. Make one after every fork: the file is of the thread that opened it."""

    def __init__(self) -> None:
        self._file = os.open(FAIL_NTH, os.O_RDWR | os.O_CLOEXEC)
        self._number = ctypes.create_string_buffer(16)
        self._left = ctypes.create_string_buffer(16)
        self._at, self._to = ctypes.addressof(self._number), ctypes.addressof(self._left)
        self.error = 0  # errno of the last shot's call

    def fire(self, nth: int, call: Callable[..., int], *arguments: int) -> tuple[int, bool]:
        """What the call gave, -1 on an error; and whether the fault went off."""
        file, number, left = self._file, self._at, self._to
        text = b"%d\n" % nth
        self._number.value = text
        length = len(text)
        ctypes.set_errno(0)
        _pwrite(file, number, length, 0)
        result = call(*arguments)
        got = _pread(file, left, 15, 0)
        self.error = ctypes.get_errno() if result == -1 else 0
        self._number.value = b"0\n"
        _pwrite(file, number, 2, 0)
        # The read copies to user space: a fault that was still to come may hit that.
        return result, got > 0 and self._left.raw[:got].split() == [b"0"]

    def close(self) -> None:
        os.close(self._file)


@dataclass(slots=True)
class Tally:
    """How an enumeration went."""

    what: str
    fired: int = 0  # N that went off
    failed: int = 0  # of these, calls that gave an error
    by: Counter[str] = field(default_factory=Counter)  # injector -> how often, by the log

    def __str__(self) -> str:
        names = ", ".join(f"{name} {count}" for name, count in sorted(self.by.items()))
        return f"{self.what} {self.fired} ({self.failed} gave an error; {names or 'none named'})"


def enumerate_faults(
    what: str, shoot: Callable[[int], tuple[bool, bool]], said: Callable[[], list[str]]
) -> Tally:
    """N = 1, 2, 3 … until the fault is not reached; ``shoot(N)`` says (went off, gave an error).

    ``said`` gives what the kernel logged since it was last asked. Raises CheckError on a report
    there, and when there is no end.
    """
    tally = Tally(what)
    for nth in range(1, _LAST + 1):
        off, failed = shoot(nth)
        lines = said()  # at once: the notices soon push out what was said before
        if report := health.excerpt(lines):
            raise CheckError("\n".join((f"{what}, N = {nth}:", *report)))
        if not off:
            return tally
        tally.fired += 1
        tally.failed += failed
        tally.by.update(named(lines))
    raise CheckError(f"{what}: the fault still goes off at N = {_LAST}")


def named(lines: list[str]) -> list[str]:
    """The injectors that these lines of the log name."""
    return [match[1] for line in lines if (match := _NAMED.search(line))]


@contextlib.contextmanager
def still() -> Iterator[None]:
    """No collection of garbage in between."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def inherit_only(address: int, length: int) -> None:
    """A fork copies nothing but this range: the child dies at once, and the calls are few."""
    madvise = function("madvise", _long, _pointer, _size, _int)
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(one, 16) for one in line.split()[0].split("-"))
        elsewhere = end <= address or start >= address + length
        if elsewhere and start < 1 << 47:  # vsyscall is not memory of ours
            madvise(start, end - start, _MADV_DONTFORK)


def buffer(size: int = PAGE) -> tuple[ctypes.Array[ctypes.c_char], int]:
    """Memory that is there already, and its address."""
    made = ctypes.create_string_buffer(size)
    ctypes.memset(made, 1, size)
    return made, ctypes.addressof(made)
