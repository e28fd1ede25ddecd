# SPDX-License-Identifier: GPL-2.0-or-later
"""How long ``runner.py build`` takes for a variant, changed and unchanged."""

from __future__ import annotations

from benchmarks.bench import LAB, Bench, timed, without_images
from benchmarks.record import Found, Row

# It touches fs/fuse/file.c, and nothing else.
ONE_FILE = "fuse-writable-mmap@control"
# Five patches to fs/fuse, and to the header that it shares with its servers.
SERIES = "fuse-direct-mmap@v3"
_LIMIT = 1800.0


def variant(bench: Bench) -> Found:
    bench.image("base")
    built = {name: _built(name, bench) for name in (ONE_FILE, SERIES)}
    same, makes = _unchanged(bench)
    return Found(
        (
            Row(f"{ONE_FILE}, which touches fs/fuse only", "s", tuple(built[ONE_FILE]), 25),
            Row(f"{SERIES}, fs/fuse and its uAPI header", "s", tuple(built[SERIES])),
            Row(f"{ONE_FILE}, unchanged", "s", same, 1),
            Row("makes of an unchanged one", "makes", (makes,), 0),
        )
    )


def _built(name: str, bench: Bench) -> list[float]:
    """Wall seconds from the command to the image, each time without any image."""
    seconds = []
    for turn in range(bench.times(3)):
        with (
            without_images(bench.cache) as cache,
            bench.progress.step(f"build {name} from its built base ({turn + 1})"),
        ):
            log = bench.folder("variant") / f"{name}-{turn}.log"
            seconds.append(timed(LAB, ["build", name], cache, log, _LIMIT))
    return seconds


def _unchanged(bench: Bench) -> tuple[tuple[float, ...], float]:
    """Wall seconds of the same command again, and how many makes it began: each has a log."""
    bench.image(ONE_FILE)
    logs = bench.cache.room("logs")
    before = {file: file.stat().st_mtime_ns for file in logs.glob("build-*.log")}
    log = bench.folder("variant") / "unchanged.log"
    with bench.progress.step(f"build {ONE_FILE}, which is built"):
        seconds = [
            timed(LAB, ["build", ONE_FILE], bench.cache, log, 60) for _ in range(bench.times(7, 3))
        ]
    name = f"build-{ONE_FILE}-"
    after = {f: f.stat().st_mtime_ns for f in logs.glob("build-*.log") if f.name.startswith(name)}
    makes = sum(before.get(file) != when for file, when in after.items())
    return tuple(seconds), float(makes)
