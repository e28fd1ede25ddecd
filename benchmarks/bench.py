# SPDX-License-Identifier: GPL-2.0-or-later
"""What every figure works with: the lab, its runner as a user starts it, throw-away places."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from filelock import FileLock

from patchlab import config, proc
from patchlab.building import build
from patchlab.errors import UsageError
from patchlab.guests import root
from patchlab.model import Image, Lab, Root
from patchlab.paths import Cache
from patchlab.progress import Progress

REPOSITORY = Path(__file__).resolve().parents[1]
LAB = REPOSITORY / "lab.toml"
BASE = "base"
SERIES = "speed"  # of a throw-away lab
# Rooms of the user's cache that a throw-away one shows; its images, logs and reviews are its own.
_LENT = ("guards", "hosts", "locks", "roots", "sources", "trees")


@dataclass(frozen=True, slots=True)
class Bench:
    lab: Lab
    cache: Cache  # the user's: nothing in it is ever removed
    progress: Progress
    results: Path  # logs and consoles
    quick: bool  # few and short: to see that a figure can be taken
    minutes: float  # how long each cold build goes on; 0 is to its end

    def times(self, full: int, quick: int = 1) -> int:
        return quick if self.quick else full

    def image(self, name: str) -> Image:
        """The user's own image of a variant, built before anything is timed."""
        variant = config.find_variant(self.lab, name)
        return build.build(variant, self.lab, self.cache, self.progress)

    def root(self) -> Root:
        return root.make(self.lab.machine, self.cache, self.progress)

    def folder(self, name: str) -> Path:
        path = self.results / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def argv(lab: Path, *words: str) -> list[str]:
    """The runner's command line, as a user types it."""
    return [sys.executable, str(REPOSITORY / "runner.py"), "--lab", str(lab), *words]


def environment(cache: Cache) -> Mapping[str, str]:
    """Makes the runner take ``cache``, a folder called patchlab, for the user's."""
    return {"XDG_CACHE_HOME": str(cache.folder.parent)}


def timed(lab: Path, words: Sequence[str], cache: Cache, log: Path, limit: float) -> float:
    """Wall seconds of one command of the runner. CommandFailed, but not for 1: a verdict."""
    begun = time.monotonic()
    proc.run(argv(lab, *words), deadline=limit, env=environment(cache), log=log, ok=(0, 1))
    return time.monotonic() - begun


@contextlib.contextmanager
def scratch(cache: Cache) -> Iterator[Path]:
    """A folder on the cache's filesystem, for one bench at a time; gone afterwards.

    Its name and lock are of the kind that content.clean_leftovers() knows, should this be
    killed.
    """
    with (
        FileLock(cache.room("locks") / "bench=scratch.lock"),
        tempfile.TemporaryDirectory(prefix="bench=scratch=", dir=cache.room("tmp")) as name,
    ):
        yield Path(name)


@contextlib.contextmanager
def without_images(cache: Cache) -> Iterator[Cache]:
    """The user's cache as it would be had no variant been built, but for its bases' trees."""
    with scratch(cache) as folder:
        lent = Cache(folder / "patchlab")
        lent.folder.mkdir()
        for room in _LENT:
            (lent.folder / room).symlink_to(cache.room(room))
        yield lent


@contextlib.contextmanager
def lab_of(patches: Mapping[str, Path], like: str, blocks: int | None = None) -> Iterator[Path]:
    """The shipped lab with one more series, SERIES: revision -> the folder of its patches.

    ``like`` is the series whose feature, bases and context it has. Its only run has every
    revision as an arm, the first as the baseline. Yields the lab.toml, in a folder that is
    gone afterwards, results and all.
    """
    with tempfile.TemporaryDirectory(prefix="patchlab-bench-") as name:
        folder = Path(name)
        series = folder / "patches" / SERIES
        for revision, source in patches.items():
            copy_patches(source, series / revision)
        (series / "series.toml").write_text(_series(like, patches), encoding="utf-8")
        text = _lab(folder, list(patches), like, blocks)
        (folder / "lab.toml").write_text(text, encoding="utf-8")
        yield folder / "lab.toml"


def copy_patches(source: Path, to: Path) -> None:
    to.mkdir(parents=True)
    for file in source.iterdir():
        (to / file.name).write_bytes(file.read_bytes())


def _series(like: str, patches: Mapping[str, Path]) -> str:
    shipped = config.load(LAB).series[like]
    first = shipped.revisions[-1]
    document = tomlkit.document()
    document["title"] = "The lab's own speed"
    document["feature"] = shipped.feature
    for revision in patches:
        table = {"bases": list(first.bases), "min_context": first.min_context}
        document.setdefault("revision", {})[revision] = table
    return tomlkit.dumps(document)


def _lab(folder: Path, revisions: Sequence[str], like: str, blocks: int | None) -> str:
    shipped = config.load(LAB)
    document = tomlkit.parse(LAB.read_text(encoding="utf-8"))
    arms = [f"{SERIES}@{revision}" for revision in revisions]
    document["default"] = SERIES
    document["kernels"] = str(shipped.kernels)
    document["patches"] = [str(folder / "patches")]
    document["run"] = {
        SERIES: {
            "title": "The lab's own speed",
            "base": shipped.runs[shipped.default_run].arms[0].base.name,
            "baseline": arms[0],
            "arms": arms,
            "features": [shipped.series[like].feature],
        }
    }
    if blocks is not None:
        document["sampling"]["blocks"] = blocks
    return tomlkit.dumps(document)


def edit_line(folder: Path, old: str, new: str) -> None:
    """Change one added line of one patch. Raises UsageError when no line has ``old``."""
    for file in sorted(folder.glob("*.patch")):
        lines = file.read_text(encoding="utf-8").split("\n")
        for index, line in enumerate(lines):
            if line.startswith("+") and old in line:
                lines[index] = line.replace(old, new)
                file.write_text("\n".join(lines), encoding="utf-8")
                return
    raise UsageError(f"{folder}: no patch adds a line with {old!r}")
