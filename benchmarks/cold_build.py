# SPDX-License-Identifier: GPL-2.0-or-later
"""A cold build of the base, and of what ``vng --kconfig`` makes of the same source."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import BASE, Bench, scratch
from benchmarks.record import Found, Row
from patchlab import config, proc, sandbox
from patchlab.building import build, kconfig, make, tree
from patchlab.errors import BuildError, LabError, LostInstrument
from patchlab.model import SourceTree
from patchlab.sources import source

_PREPARED = 100  # fewer steps than this are not the rest of a kernel
_WHOLE = 4 * 3600.0  # limit of a build that goes to its end
# What the commands that make -n prints begin with. Without -k it ends at the first archive
# that is not there; with it, on a prepared tree, it names all but the last links (5 %).
_PLAN = 'make -k -n RUSTC=no-rustc PAHOLE=no-pahole bzImage 2>/dev/null | grep -c "echo \'  [A-Z]"'


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two builds. ``total`` is the steps done and those that make still plans."""

    total: int
    done: int
    seconds: float
    ended: bool

    @property
    def whole(self) -> float:
        """Seconds of the whole build: taken, or the steps still to do at the rate so far."""
        return self.seconds if self.ended else self.seconds * self.total / self.done


def cold_build(bench: Bench) -> Found:
    variant = config.find_variant(bench.lab, BASE)
    plan = build.plan_of(variant, bench.lab, bench.cache)
    sources = source.fetch(variant.base, bench.cache, bench.progress)

    def ours(maker: make.Maker) -> None:
        kconfig.configure(maker.tree, plan.merged, maker.configure)

    why = ""
    lab = _side("base of the lab", sources, ours, bench)
    vng: Side | None = None
    try:
        vng = _side("vng --kconfig", sources, _vng_config, bench)
    except LabError as error:
        why = str(error).splitlines()[0]
    return Found(
        (
            *_rows("the lab's base", lab, ""),
            *_rows("vng --kconfig and make", vng, why),
            Row(
                "steps of vng's against the lab's",
                "×",
                (vng.total / lab.total,) if vng else (),
                missing=why,
            ),
            Row(
                "time of vng's against the lab's",
                "×",
                (vng.whole / lab.whole,) if vng else (),
                missing=why,
                note="" if vng and vng.ended and lab.ended else "from the steps done so far",
            ),
        )
    )


def _rows(name: str, side: Side | None, why: str) -> tuple[Row, ...]:
    if side is None:
        return (Row(f"{name}, whole", "min", missing=why),)
    how = f"{side.done} of {side.total} steps in {side.seconds / 60:.1f} min"
    note = "taken to the end" if side.ended else f"estimated: {how}"
    return (
        Row(f"steps of {name}", "steps", (float(side.total),)),
        Row(f"{name}, whole", "min", (side.whole / 60,), note=note),
    )


def _side(
    name: str, sources: SourceTree, configure: Callable[[make.Maker], None], bench: Bench
) -> Side:
    minutes = min(bench.minutes, 0.5) if bench.quick else bench.minutes
    limit = minutes * 60 or _WHOLE
    with scratch(bench.cache) as folder, bench.progress.step(f"cold build: {name}") as step:
        clone = folder / "tree"
        tree.clone(sources.folder, clone)
        log = bench.folder("cold-build") / f"{name.split(maxsplit=1)[0]}.log"
        log.unlink(missing_ok=True)
        jobs = os.cpu_count() or 1
        configure(make.Maker(clone, log, time.monotonic() + 600, jobs))
        begun = time.monotonic()
        maker = make.Maker(clone, log, begun + limit, jobs)
        done, ended = _make(maker, lambda steps: step.advance(steps, 0))
        seconds = time.monotonic() - begun
        total = done if ended else done + _planned(clone)
        return Side(total, done, seconds, ended)


def _make(maker: make.Maker, seen: Callable[[int], None]) -> tuple[int, bool]:
    """Steps until the end, or until the limit of ``maker``; whether it was the end."""
    steps = 0

    def count(done: int) -> None:
        nonlocal steps
        steps = done
        seen(done)

    try:
        return maker.build(count), True
    except BuildError:
        if time.monotonic() < maker.limit or not steps:
            raise
        return steps, False


def _planned(clone: Path) -> int:
    """Steps that are left, by what make says that it would run. Raises LostInstrument."""
    box = {make.INSIDE: clone}
    env = {"LC_ALL": "C", "PATH": sandbox.PATH}
    argv = sandbox.bubblewrap(["sh", "-c", _PLAN], cwd=make.INSIDE, write=box, env=env)
    words = proc.run(argv, deadline=900, ok=(0, 1)).output.split()
    if not words or not words[-1].isdecimal() or int(words[-1]) < _PREPARED:
        raise LostInstrument(
            "make -n does not say what is left: the tree was not even prepared",
            hint="give it more time: --minutes",
        )
    return int(words[-1])


def _vng_config(maker: make.Maker) -> None:
    """vng's own .config for this tree: its make runs as for a user, outside the box."""
    tools = Path(sys.executable).parent
    path = f"{tools}:{proc.environment()['PATH']}"
    proc.run(["vng", "--kconfig"], deadline=600, cwd=maker.tree, env={"PATH": path}, log=maker.log)
    maker.configure("olddefconfig")
