# SPDX-License-Identifier: GPL-2.0-or-later
"""run() and spawn(): the only door to subprocesses.

Every process gets an argv list, a closed stdin, an explicit environment and a process
group of its own, dies when the lab dies, and is always waited for.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchlab.errors import LabError, MissingTool

TAIL_LINES = 20
# Asks the kernel to kill the child when the lab dies, even of kill -9. A preexec_fn could
# do it too, but deadlocks now and then in a program with threads.
_DIE_WITH_ME = ("setpriv", "--pdeathsig", "KILL", "--")
_LIVE: set[subprocess.Popen[bytes]] = set()
_LOCK = threading.Lock()
_STOPPING = threading.Event()
_UNDERTAKER = Path(__file__).with_name("undertaker.py")


class CommandFailed(LabError):
    """A command exited with a code that its caller did not expect."""

    exit_code = 69

    def __init__(self, argv: Sequence[str], code: int, tail: str, log: Path | None) -> None:
        where = f"\nfull log: {log}" if log else ""
        super().__init__(f"exit {code}: {shlex.join(argv)}\n{tail}{where}")
        self.code = code
        self.tail = tail
        self.log = log


class CommandTimedOut(CommandFailed):
    """A command ran past its deadline and was killed."""

    def __init__(self, argv: Sequence[str], seconds: float, tail: str, log: Path | None) -> None:
        super().__init__(argv, -signal.SIGKILL, f"killed after {seconds:.0f} s\n{tail}", log)


class Stopped(LabError):
    """A command was to be started while all of them are being ended."""

    exit_code = 130


@dataclass(frozen=True, slots=True)
class Completed:
    code: int
    output: str  # stdout and stderr, merged in the order they came


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What every child gets: a C locale, the caller's PATH, HOME and proxies, and ``extra``."""
    kept = ("PATH", "HOME", "USER", "TMPDIR", "http_proxy", "https_proxy", "no_proxy", "TERM")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    # mke2fs and its like live where an ordinary user's PATH does not look.
    env["PATH"] = f"{env.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
    return env | {"LC_ALL": "C.UTF-8", "TZ": "UTC"} | dict(extra or {})


def run(
    argv: Sequence[str],
    *,
    deadline: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    ok: Sequence[int] = (0,),
    line: Callable[[str], None] | None = None,
    stdin: bytes | None = None,
) -> Completed:
    """Run to the end.

    ``deadline`` is in seconds. ``log`` gets the output as it comes, ``line`` each line of
    it. ``stdin`` is given whole; without it stdin is closed. Raises MissingTool when
    ``argv[0]`` does not exist, CommandFailed for an exit code not in ``ok``,
    CommandTimedOut past the deadline.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    kept: list[str] = []
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(log.open("a", encoding="utf-8")) if log else None
        feed = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        process = stack.enter_context(
            spawn(argv, cwd=cwd, env=env, stdin=feed, stdout=subprocess.PIPE)
        )
        watchdog = _Watchdog(process, deadline)
        stack.enter_context(watchdog)
        if stdin is not None:
            _feed(process, stdin)
        assert process.stdout is not None
        for raw in process.stdout:
            text = raw.decode("utf-8", "replace")
            kept.append(text)
            tail.append(text)
            if sink:
                sink.write(text)
                sink.flush()
            if line:
                line(text.rstrip("\n"))
        code = process.wait()
    if watchdog.fired:
        raise CommandTimedOut(argv, deadline, "".join(tail), log)
    if code not in ok:
        raise CommandFailed(argv, code, "".join(tail), log)
    return Completed(code, "".join(kept))


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    def write() -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(data)

    threading.Thread(target=write, daemon=True).start()


@contextlib.contextmanager
def spawn(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
    stderr: int = subprocess.STDOUT,
    pass_fds: Sequence[int] = (),
    grace: float = 5.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process, yield it, and make sure that its whole group is gone afterwards.

    On the way out the group gets SIGTERM, and SIGKILL ``grace`` seconds later. Raises
    MissingTool when ``argv[0]`` does not exist, Stopped within ``stopping()``.
    """
    variables = environment(env)
    if shutil.which(argv[0], path=variables.get("PATH")) is None:
        raise MissingTool(
            f"{argv[0]}: no such program", hint="runner.py doctor names the package that has it"
        )
    with _LOCK:  # until it is among the living: stopping() misses nobody
        if _STOPPING.is_set():
            raise Stopped(f"{argv[0]}: not started, the lab is stopping")
        undertaker = _undertaker()
        process = subprocess.Popen(
            [*_DIE_WITH_ME, *argv],
            cwd=cwd,
            env=variables,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            pass_fds=pass_fds,
        )
        _tell(undertaker, f"+{process.pid}")
        _LIVE.add(process)
    try:
        yield process
    finally:
        _reap(process, grace)
        with _LOCK:
            _LIVE.discard(process)
            _tell(undertaker, f"-{process.pid}")


def attach(argv: Sequence[str]) -> int:
    """Run a program for the person at the terminal, on that terminal; its exit code.

    ^C goes to the program, which decides what it means. Raises MissingTool.
    """
    variables = environment()
    if shutil.which(argv[0], path=variables.get("PATH")) is None:
        raise MissingTool(f"{argv[0]}: no such program", hint="runner.py doctor names its package")
    kept = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        process = subprocess.Popen([*_DIE_WITH_ME, *argv], env=variables)
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, kept)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Every live child's group is killed, and none is started until the end of the block.

    Threads that wait for one wake up, and those that would start the next one end with Stopped.
    After an exception in the block nothing is started any more: the lab is on its way out.
    """
    _STOPPING.set()
    terminate_all()
    yield
    _STOPPING.clear()


def is_stopping() -> bool:
    """Whether a child that died now was killed by ``stopping()``, most likely."""
    return _STOPPING.is_set()


def terminate_all() -> None:
    """SIGKILL every live child's group."""
    with _LOCK:
        for process in _LIVE:
            _signal_group(process, signal.SIGKILL)


def paste(argv: Sequence[str]) -> str:
    """The command as it would be typed."""
    return shlex.join(argv)


class _Watchdog(contextlib.AbstractContextManager["_Watchdog"]):
    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self.fired = False
        self._process = process
        self._timer = threading.Timer(seconds, self._fire)
        self._timer.daemon = True

    def _fire(self) -> None:
        self.fired = True
        _signal_group(self._process, signal.SIGKILL)

    def __enter__(self) -> _Watchdog:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


_undertakers: dict[int, subprocess.Popen[bytes]] = {}  # by process id: a fork has its own


def _undertaker() -> int:
    """Its pipe. What a child started goes with the lab as well: see undertaker.py."""
    if os.getpid() not in _undertakers:
        argv = [sys.executable, "-I", "-S", str(_UNDERTAKER)]
        null = subprocess.DEVNULL
        pipe = subprocess.PIPE
        _undertakers[os.getpid()] = subprocess.Popen(
            argv, cwd="/", env={}, stdin=pipe, stdout=null, stderr=null, start_new_session=True
        )
    stdin = _undertakers[os.getpid()].stdin
    assert stdin is not None
    return stdin.fileno()


def _tell(undertaker: int, line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(undertaker, f"{line}\n".encode())


@atexit.register
def _dismiss_undertaker() -> None:
    with contextlib.suppress(KeyError, subprocess.TimeoutExpired):
        _undertakers.pop(os.getpid()).communicate(timeout=5)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _reap(process: subprocess.Popen[bytes], grace: float) -> None:
    # The leader may be gone while its children live on, so the group is signalled always.
    _signal_group(process, signal.SIGTERM)
    limit = time.monotonic() + grace
    while process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    _signal_group(process, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()
