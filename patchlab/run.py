# SPDX-License-Identifier: GPL-2.0-or-later
"""The way of a run: images, root, clock, check boots, bench boots; every boot kept at once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from patchlab import (
    build,
    console,
    features,
    inspection,
    kvm,
    ledger,
    machine,
    measure,
    proc,
    provenance,
    root,
    schedule,
)
from patchlab.model import (
    BootKind,
    BootRecord,
    CheckInfo,
    Clock,
    Image,
    Lab,
    Outcome,
    Root,
    RunPlan,
)
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.review import Asked, RuleResult
from patchlab.store.results import Results


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run takes things from and leaves them."""

    cache: Cache
    results: Results
    folder: Path  # results/: a folder a run, with every boot's console and QEMU log
    command: tuple[str, ...]  # the command line, for the provenance


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which boots a run makes. ``boot`` alone makes check boots that check nothing."""

    checks: bool = True
    bench: bool = True
    boot: bool = False


def execute(lab: Lab, plan: RunPlan, place: Place, progress: Progress, wanted: Wanted) -> int:
    """Make the run and give its id. Build and host trouble is raised; a dead guest is stored."""
    begun = time.monotonic()
    before = _Stages()
    catalogue = features.catalogue().of(plan.features)
    with before.timed("build"):
        for arm in plan.arms:
            build.try_patches(arm, lab, place.cache, progress)
        images = {arm.name: build.build(arm, lab, place.cache, progress) for arm in plan.arms}
    with before.timed("review"):
        said = inspection.inspect(plan.arms, lab, place.cache, progress) if wanted.checks else ()
    with before.timed("guest root"):
        guest_root = root.make(lab.machine, place.cache, progress)
    with before.timed("KVM proof"):
        proof = kvm.prove(images[plan.baseline], guest_root, lab, place.cache, progress)
    clock = kvm.clock(proof)
    run_id = place.results.begin_run(
        name=plan.name,
        title=plan.title,
        baseline=plan.baseline,
        arms=[arm.name for arm in plan.arms],
        features=plan.features,
        sampling=lab.sampling,
        provenance=provenance.gather(lab, guest_root, proof, clock, place.command),
        checks=catalogue.checks,
        metrics=catalogue.metrics,
        asked=_asked(plan, lab) if wanted.checks else (),
    )
    _keep(place.results, run_id, images, said, before.seconds)
    boots = _Boots(run_id, lab, place, guest_root, progress, _known_splats(lab))
    if wanted.checks or wanted.boot:
        with _stage(place.results, run_id, "check boots"):
            infos = catalogue.checks if wanted.checks else ()
            boots.make(_check_tasks(images, lab, infos, clock), "check boots", at_once=1)
    if wanted.bench:
        with _stage(place.results, run_id, "bench boots"):
            at_once = schedule.workers(clock, lab.sampling, machine.host_cores())
            boots.make(_bench_tasks(images, lab, catalogue, clock), "bench boots", at_once)
    place.results.finish_run(run_id, time.monotonic() - begun)
    return run_id


def _keep(
    results: Results,
    run_id: int,
    images: Mapping[str, Image],
    said: Sequence[RuleResult],
    seconds: Mapping[str, float],
) -> None:
    """Store what came before the first boot."""
    results.save_rules(run_id, said)
    for name, image in images.items():
        results.save_image(run_id, name, image)
    for stage, spent in seconds.items():
        results.save_stage(run_id, stage, spent)


def _asked(plan: RunPlan, lab: Lab) -> tuple[Asked, ...]:
    """The review ledgers of the series that the arms have revisions of."""
    names = dict.fromkeys(revision.series for arm in plan.arms for revision in arm.revisions)
    return tuple(ledger.asked(lab.series[name]) for name in names if name in lab.series)


def _check_tasks(
    images: dict[str, Image], lab: Lab, checks: tuple[CheckInfo, ...], clock: Clock
) -> list[measure.Task]:
    """One check boot an arm: real time, so never the icount clock."""
    real = Clock.WALL if clock is Clock.WALL else Clock.TCG
    return [
        measure.Task(
            machine.Start(image, BootKind.CHECK, real, lab.sampling.seed),
            variant,
            block=-1,
            order=order,
            checks=checks,
            metrics=(),
        )
        for order, (variant, image) in enumerate(images.items())
    ]


def _bench_tasks(
    images: dict[str, Image], lab: Lab, catalogue: features.Catalogue, clock: Clock
) -> list[measure.Task]:
    metrics = tuple(m for m in catalogue.metrics if clock in m.clocks)
    return [
        measure.Task(
            machine.Start(images[place.variant], BootKind.BENCH, clock, place.seed),
            place.variant,
            place.block,
            place.order,
            checks=(),
            metrics=metrics,
        )
        for block in schedule.blocks(list(images), lab.sampling)
        for place in block
    ]


def _known_splats(lab: Lab) -> Sequence[console.KnownSplat]:
    file = lab.kernels / "known-splats.toml"
    return console.load_known(file) if file.is_file() else ()


@contextlib.contextmanager
def _stage(results: Results, run_id: int, stage: str) -> Iterator[None]:
    """Keeps the wall seconds of a stage, also of one that was interrupted."""
    begun = time.monotonic()
    try:
        yield
    finally:
        results.save_stage(run_id, stage, time.monotonic() - begun)


class _Stages:
    """Times what comes before the run can be written: its clock is not known yet."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.seconds[stage] = time.monotonic() - begun


@dataclass(frozen=True, slots=True)
class _Boots:
    run_id: int
    lab: Lab
    place: Place
    root: Root
    progress: Progress
    known: Sequence[console.KnownSplat]

    def make(self, tasks: Sequence[measure.Task], title: str, at_once: int) -> None:
        """Make all boots, ``at_once`` at a time; ^C ends every guest before it goes on up."""
        with self.progress.step(title) as step, ThreadPoolExecutor(at_once) as pool:
            pending = [pool.submit(self._one, task, n) for n, task in enumerate(tasks)]
            try:
                for done, future in enumerate(as_completed(pending), start=1):
                    future.result()
                    step.advance(done, len(tasks))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                proc.terminate_all()
                raise

    def _one(self, task: measure.Task, number: int) -> None:
        """One boot; a lost one is tried once more, and both tries are kept."""
        for attempt in (1, 2):
            record = self._boot(task, number, attempt)
            self.place.results.save_boot(self.run_id, record)
            if record.outcome is not Outcome.PASSED:
                why = record.reason.split("\n", 1)[0]
                self.progress.note(f"{measure.title(task)}: {record.outcome}: {why}")
            if record.outcome is not Outcome.LOST:
                return

    def _boot(self, task: measure.Task, number: int, attempt: int) -> BootRecord:
        name = f"{task.start.kind}-{number:03d}-{attempt}"
        folder = self.place.folder / measure.run_folder(self.run_id) / name
        with self.progress.step(measure.title(task)) as step:
            return measure.boot(task, self.root, self.lab, folder, attempt, self.known, step)
