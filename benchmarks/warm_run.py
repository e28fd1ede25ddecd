# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the wall time of a run goes whose images are all built: how much is the lab's own?"""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.bench import BASE, LAB, REPOSITORY, Bench, argv, environment
from benchmarks.record import Found, Row
from benchmarks.watch import QEMU, Watched, watched
from patchlab import config, proc
from patchlab.errors import LostInstrument
from patchlab.record import StoredRun
from patchlab.store.results import Results

_LIMIT = 3600.0
_ENDED = (0, 1)  # exit codes of a run that came to its end


def warm_run(bench: Bench) -> Found:
    """The shipped run as ``runner.py run`` makes it; a quick one boots the base once."""
    for arm in bench.lab.runs[bench.lab.default_run].arms:
        bench.image(arm.name)
    bench.root()
    words = ["boot", BASE] if bench.quick else ["run"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory(prefix="patchlab-bench-") as name:
        seen, wall = _run(words, _lab(Path(name)), bench)
        with Results.open(Path(name) / "results" / "lab.sqlite") as results:
            stored = results.load_run(results.latest_run())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Found(
        (
            Row(
                "wall time with neither a QEMU nor a make",
                "%",
                (100 * seen.neither,),
                5,
                note=f"of {wall:.0f} s: runner.py {' '.join(words)}, {len(stored.boots)} boots",
            ),
            Row(
                "the runner's own share of all processor time",
                "%",
                (100 * seen.own_cpu / cpu,),
                note=f"{seen.own_cpu:.1f} of {cpu:.0f} s",
            ),
            Row("wall time with a QEMU", "s", (seen.wall.get(QEMU, 0.0),)),
            *_stages(stored, wall),
        )
    )


def _stages(stored: StoredRun, wall: float) -> list[Row]:
    """The stages that the run itself timed, and what is outside of all of them."""
    rest = wall - sum(stored.stages.values())
    return [
        *(Row(f"stage: {name}", "s", (seconds,)) for name, seconds in stored.stages.items()),
        Row("outside the stages: Python's start, lab.toml, the report", "s", (rest,)),
    ]


def _lab(folder: Path) -> Path:
    """The shipped lab in a folder of its own, so that its results are not the user's."""
    shutil.copyfile(LAB, folder / LAB.name)
    for path in (config.load(LAB).kernels, REPOSITORY / "patches"):
        (folder / path.name).symlink_to(path)
    return folder / LAB.name


def _run(words: list[str], lab: Path, bench: Bench) -> tuple[Watched, float]:
    log = bench.folder("warm-run") / "runner.log"
    begun = time.monotonic()
    with (
        bench.progress.step(f"runner.py {' '.join(words)}"),
        log.open("wb") as sink,
        proc.spawn(argv(lab, *words), env=environment(bench.cache), stdout=sink.fileno()) as runner,
        watched(runner.pid) as seen,
    ):
        code = runner.wait(_LIMIT)
    if code not in _ENDED:
        raise LostInstrument(f"runner.py {' '.join(words)}: exit {code}", hint=f"its log: {log}")
    return seen, time.monotonic() - begun
