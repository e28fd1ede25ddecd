# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 of a real runner at a chosen moment, and what is to be found afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from patchlab.model import Image
from patchlab.record import BootKind
from patchlab.sources import pristine

REPOSITORY = Path(__file__).resolve().parents[2]
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
_PATIENCE = 5.0  # seconds in which every process of a killed runner has to be gone
_STAGES = (
    # A line that the runner prints, and the stage that it begins.
    ("fetch ", "source"),
    ("unpack ", "source"),
    ("build base", "base build"),
    ("tree of ", "variant build"),
    ("build ", "variant build"),
    ("guest root: ", "guest root"),
    ("KVM: booting", "KVM proof"),
    ("check boot of ", "check boot"),
    ("bench boot of ", "bench boot"),
    ("bench boots: done", "report"),
    ("all of its boots are stored", "report"),
)


@dataclass(frozen=True, slots=True)
class Ended:
    """A runner that was killed, or that ended before it could be."""

    code: int
    stage: str  # the last that it said it was in
    seconds: float  # since its start
    said: str
    left: tuple[str, ...]  # processes that outlived it


@dataclass(frozen=True, slots=True)
class Place:
    """A cache, results and temporary files that only these runners use."""

    folder: Path
    lab: Path

    @property
    def cache(self) -> Path:
        return self.folder / "patchlab"

    @property
    def results(self) -> Path:
        return self.lab.parent / "results"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def command(self, *words: str) -> list[str]:
        return [sys.executable, str(REPOSITORY / "runner.py"), "--lab", str(self.lab), *words]

    def environment(self) -> dict[str, str]:
        self.temporary.mkdir(parents=True, exist_ok=True)
        return os.environ | {
            "XDG_CACHE_HOME": str(self.folder),
            "TMPDIR": str(self.temporary),
        }


def stage_of(said: str) -> str:
    """The stage that the runner was in when it had said this."""
    found = [(said.rfind(words), stage) for words, stage in _STAGES if words in said]
    # "build base" is a "build " as well: at the same place the first of _STAGES counts.
    return max(found, key=lambda one: one[0], default=(0, "start"))[1]


@contextlib.contextmanager
def guardian() -> Iterator[None]:
    """Whatever a dead child leaves running becomes a child of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_SUBREAPER, 0, 0, 0, 0)


def run(
    place: Place, words: Sequence[str], kill: tuple[str, float] | None, limit: float = 1800
) -> Ended:
    """Start the runner; with ``kill``, end it so many seconds after it began that stage.

    Needs guardian(). When the runner is past that stage already, the later one counts.
    """
    return start(place.command(*words), place, kill, limit)


def start(
    argv: Sequence[str], place: Place, kill: tuple[str, float] | None, limit: float = 1800
) -> Ended:
    """Start any program like a runner, and end it in the same way."""
    before = set(descendants())
    log = place.folder / "said"
    begun = time.monotonic()
    with log.open("wb") as said:
        # Not patchlab.proc: what that would kill is what is looked for here.
        process = subprocess.Popen(argv, env=place.environment(), stdout=said, stderr=said)
        try:
            _until(process, log, kill, begun + limit)
        finally:
            process.kill()
            code = process.wait()
    seconds = time.monotonic() - begun
    text = log.read_text("utf-8", "replace")
    return Ended(code, stage_of(text), seconds, text, tuple(_left(before)))


def _until(
    process: subprocess.Popen[bytes], log: Path, kill: tuple[str, float] | None, limit: float
) -> None:
    order = ["start", *dict.fromkeys(stage for _, stage in _STAGES)]
    moment = limit
    while process.poll() is None and time.monotonic() < moment:
        time.sleep(0.02)
        if kill and moment == limit:
            stage = stage_of(log.read_text("utf-8", "replace"))
            if order.index(stage) >= order.index(kill[0]):
                moment = time.monotonic() + kill[1]


def _left(before: set[int]) -> Iterator[str]:
    """What outlives the runner by more than _PATIENCE. It is ended, one by one."""
    limit = time.monotonic() + _PATIENCE
    while (found := descendants().keys() - before) and time.monotonic() < limit:
        for pid in found:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)
    for pid, line in descendants().items():
        if pid not in before:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            yield line


def descendants() -> dict[int, str]:
    """Process id -> command line of all that this process, or a dead child, started."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                stat = (entry / "stat").read_text("utf-8", "replace")
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found: dict[int, str] = {}
    pending = [os.getpid()]
    while pending:
        parent = pending.pop()
        for pid in (pid for pid, its in parents.items() if its == parent):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                found[pid] = line.decode("utf-8", "replace").strip() or "a zombie"
            pending.append(pid)
    return found


def findings(said: str) -> list[str]:
    """What the runner said of an earlier one that was killed."""
    marks = ("going on with run", "removed what a killed lab left", "cannot be gone on with")
    lines = (line.partition("] ")[2] or line for line in said.splitlines())
    return [line.strip() for line in lines if any(mark in line for mark in marks)]


# ---------------------------------------------------------------- what is there afterwards


def mounts(place: Place) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(place.folder) in line]


def half_done(place: Place) -> list[Path]:
    """What only a live runner may have: the next one removes it."""
    found = [*(place.cache / "tmp").glob("*"), *place.temporary.glob("*")]
    return [*found, *place.results.glob(".patchlab-*")]


def not_whole(place: Place, known: set[Path]) -> list[str]:
    """Entries of the cache and pages that have their final name and are not whole.

    ``known`` are entries that were looked at before; those that are whole are added.
    """
    wrong = []
    for room, look in _LOOKS.items():
        for entry in sorted(set((place.cache / room).glob("*")) - known):
            try:
                fault = look(entry)
            except (OSError, msgspec.MsgspecError) as error:
                fault = str(error)
            if fault:
                wrong.append(f"{room}/{entry.name}: {fault}")
            else:
                known.add(entry)
    for page in place.results.glob("*.html"):
        if not page.read_text("utf-8").rstrip().endswith("</html>"):
            wrong.append(f"{page.name} has no end")
    return wrong


def _source(entry: Path) -> str:
    damaged = pristine.damage(entry / "tree")
    return f"{len(damaged)} files differ" if damaged else ""


def _tree(entry: Path) -> str:
    msgspec.json.decode((entry / "built.json").read_bytes())
    return "" if (entry / "tree" / "vmlinux").is_file() else "no vmlinux"


def _image(entry: Path) -> str:
    text = (entry / "image.json").read_bytes()
    image = msgspec.json.decode(text, type=Image, dec_hook=lambda _, path: Path(path))
    seen = hashlib.sha256((entry / "bzImage").read_bytes()).hexdigest()
    if seen != image.bzimage_sha256:
        return "bzImage is another"
    return "" if (entry / "vmlinux").is_file() else "no vmlinux"


def _root(entry: Path) -> str:
    msgspec.json.decode((entry / "root.json").read_bytes())
    argv = ["/sbin/e2fsck", "-fn", str(entry / "root.ext4")]
    done = subprocess.run(argv, capture_output=True, check=False)
    return done.stdout.decode()[-200:] if done.returncode else ""


def _host(entry: Path) -> str:
    msgspec.json.decode(entry.read_bytes())
    return ""


_LOOKS: dict[str, Callable[[Path], str]] = {
    "sources": _source,
    "trees": _tree,
    "images": _image,
    "roots": _root,
    "hosts": lambda entry: _host(entry) if entry.suffix == ".json" else "",
}

# ---------------------------------------------------------------- the results


class BootRow(NamedTuple):
    """A boot as it stands in the results: of which run, its place, and what became of it."""

    run: int
    id: int
    variant: str
    kind: str
    block: int
    order: int
    attempt: int
    outcome: str


def stored(place: Place) -> list[BootRow]:
    """Every boot of every run; read without the lab."""
    file = place.results / "lab.sqlite"
    if not file.is_file():
        return []
    query = 'SELECT run, id, variant, kind, block, "order", attempt, outcome FROM boots'
    with contextlib.closing(sqlite3.connect(file)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
        found = connection.execute(query).fetchall() if ("boots",) in tables else []
    return [BootRow(*row) for row in found]


def bad_results(place: Place, before: Sequence[BootRow]) -> list[str]:
    """What is wrong with the results file; ``before`` are boots that it had."""
    file = place.results / "lab.sqlite"
    if not file.is_file():
        return ["the results are gone"] if before else []
    with contextlib.closing(sqlite3.connect(file)) as connection:
        [(said,)] = connection.execute("PRAGMA integrity_check").fetchall()[:1]
    wrong = [] if said == "ok" else [f"integrity_check: {said}"]
    now = stored(place)
    wrong += [f"boot {row} is gone" for row in before if row not in now]
    places = [(row.run, *row[2:7]) for row in now]
    return wrong + [f"boot {one} is there twice" for one in places if places.count(one) > 1]


def incomplete(rows: Sequence[BootRow], arms: Sequence[str], blocks: int) -> list[str]:
    """What a run that ended is short of: each arm has one check boot, and one in each block.

    A boot that was lost and made again counts once.
    """
    counted = [(row.variant, row.kind, row.block) for row in rows if row.outcome != "lost"]
    wanted = [(arm, BootKind.CHECK.value, -1) for arm in arms]
    wanted += [(arm, BootKind.BENCH.value, block) for arm in arms for block in range(blocks)]
    return [
        f"{' '.join(map(str, one))} was made {counted.count(one)} times"
        for one in wanted
        if counted.count(one) != 1
    ]
