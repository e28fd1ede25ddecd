# SPDX-License-Identifier: GPL-2.0-or-later
"""The way of a run: images, root, clock, check boots, bench boots; every boot kept at once."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from patchlab import proc
from patchlab.building import build
from patchlab.guests import command_line, console, kvm, machine, root
from patchlab.model import Image, Lab, Root, RunPlan, Variant, bench_arms, cpu_of, under
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.record import BootKind, BootRecord, CheckInfo, Clock, Outcome, Provenance, StoredRun
from patchlab.review import Asked
from patchlab.reviews import inspection, ledger
from patchlab.runs import features, looking, measure, provenance, resume, schedule, sitting
from patchlab.store import content
from patchlab.store.results import Results
from patchlab.store.rows import Plan

_KNOWN_SPLATS = "known-splats.toml"


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

    @property
    def kinds(self) -> tuple[BootKind, ...]:
        check = (BootKind.CHECK,) if self.checks or self.boot else ()
        return (*check, BootKind.BENCH) if self.bench else check


@dataclass(frozen=True, slots=True)
class _Ready:
    """What has to be there before the first boot."""

    images: Mapping[str, Image]
    root: Root
    catalogue: features.Catalogue
    provenance: Provenance
    ground: Mapping[str, str]

    @property
    def clock(self) -> Clock:
        return self.provenance.clock


def execute(
    lab: Lab,
    plan: RunPlan,
    place: Place,
    progress: Progress,
    wanted: Wanted,
    *,
    resume: bool = False,
) -> int:
    """Make the run and give its id. Build and host trouble is raised; a dead guest is stored.

    ``resume`` goes on with the newest unfinished run of that name, if its ground is the same.
    """
    begun, before = time.monotonic(), _Stages()
    lab = replace(lab, machine=replace(lab.machine, disk=plan.disk))
    ready = _ready(lab, plan, place, progress, wanted, before)
    with contextlib.ExitStack() as stack:
        found = earlier(plan.name, ready.ground, place, progress, resume, stack)
        if found is None:
            run_id = _begin(lab, plan, place, progress, wanted, ready, before)
            stack.enter_context(sitting.taken(place.folder, run_id))
        elif found.finished:
            return found.id
        else:
            run_id = found.id
        now = sitting.Sitting(place.results, run_id, begun, found.seconds if found else 0.0)
        if found:
            now.add(before.seconds)
        boots = _Boots(run_id, lab, place, ready.root, progress, _known_splats(lab), now)
        stored = found.boots if found else ()
        if wanted.checks or wanted.boot:
            infos = ready.catalogue.checks if wanted.checks else ()
            tasks = _check_tasks(plan, ready, lab, infos)
            boots.make("check boots", tasks, stored, at_once=1)
        if wanted.bench:
            at_once = schedule.workers(ready.clock, lab.sampling, machine.host_cores())
            tasks = _bench_tasks(plan, ready, lab)
            looking.make(run_id, tasks, boots.make, at_once, place.results, progress)
        now.finish()
    return run_id


def _ready(
    lab: Lab, plan: RunPlan, place: Place, progress: Progress, wanted: Wanted, before: _Stages
) -> _Ready:
    catalogue = features.catalogue().of(plan.features)
    with before.timed("build"):
        for arm in plan.arms:
            build.try_patches(arm, lab, place.cache, progress)
        images = {arm.name: build.build(arm, lab, place.cache, progress) for arm in plan.arms}
    with before.timed("guest root"):
        guest_root = root.make(lab.machine, place.cache, progress)
    with before.timed("KVM proof"):
        proof = kvm.prove(images[plan.baseline], guest_root, lab, place.cache, progress)
    stands = provenance.gather(lab, guest_root, proof, kvm.clock(proof), place.command)
    own = _own_ground(lab, plan, images[plan.baseline], stands.clock)
    ground = resume.ground(plan, lab.sampling, wanted.kinds, images, stands, own)
    return _Ready(images, guest_root, catalogue, stands, ground)


def _own_ground(lab: Lab, plan: RunPlan, image: Image, clock: Clock) -> dict[str, str]:
    """The lab's own share of what decides what a boot means."""
    starts = (
        command_line.Start(image, BootKind.CHECK, _real(clock), 0),
        command_line.Start(image, BootKind.BENCH, clock, 0),
    )
    known = lab.kernels / _KNOWN_SPLATS
    return {
        **{
            f"options of a {one.kind} boot": " ".join(command_line.kernel_options(one))
            for one in starts
        },
        **{f"CPU model {name}": dict(lab.machine.models)[name] for name in _models(plan)},
        **({"sensitivity": ", ".join(plan.sensitivity)} if plan.sensitivity else {}),
        "pmem devices": " ".join(str(device) for device in lab.machine.pmem),
        **({"disk": str(lab.machine.disk)} if lab.machine.disk else {}),
        "agent": machine.agent_digest(),
        _KNOWN_SPLATS: content.digest(known.read_bytes() if known.is_file() else b""),
    }


def _models(plan: RunPlan) -> tuple[str, ...]:
    """Every CPU model that the run names."""
    named = (*(arm.cpu for arm in plan.arms if arm.cpu), *plan.sensitivity)
    return tuple(dict.fromkeys(named))


def _begin(
    lab: Lab,
    plan: RunPlan,
    place: Place,
    progress: Progress,
    wanted: Wanted,
    ready: _Ready,
    before: _Stages,
) -> int:
    """Store the run and all that comes before its first boot."""
    with before.timed("review"):
        said = inspection.inspect(plan.arms, lab, place.cache, progress) if wanted.checks else ()
    fixed = Plan(
        baseline=plan.baseline,
        arms=tuple(arm.name for arm in plan.arms),
        features=plan.features,
        sampling=lab.sampling,
        provenance=ready.provenance,
        checks=ready.catalogue.checks if wanted.checks else (),
        metrics=ready.catalogue.metrics if wanted.bench else (),
        asked=_asked(plan, lab) if wanted.checks else (),
        kinds=wanted.kinds,
        ground=ready.ground,
        sensitivity=plan.sensitivity,
    )
    return place.results.begin_run(
        plan.name, plan.title, fixed, images=ready.images, rules=said, stages=before.seconds
    )


def page(folder: Path, run_id: int) -> Path:
    """The HTML report of a run, in results/."""
    return folder / f"report-{run_id:04d}.html"


def earlier(
    name: str,
    ground: Mapping[str, str],
    place: Place,
    progress: Progress,
    going_on: bool,
    stack: contextlib.ExitStack,
) -> StoredRun | None:
    """The run to go on with, held; None for a new one, with a note when that needs one.

    It is the newest that was interrupted: before its last boot, or before its report.
    """
    lines = [line for line in place.results.runs() if line.name == name]
    unfinished = next((line.id for line in lines if not line.finished), None)
    if going_on and lines and lines[0].finished and not page(place.folder, lines[0].id).exists():
        unfinished = lines[0].id
    if unfinished is None:
        return None
    with contextlib.ExitStack() as probe:
        if not probe.enter_context(sitting.free(place.folder, unfinished)):
            progress.note(f"run {unfinished} is going on in another process")
            return None
        # Only now: another process may have ended it meanwhile.
        run = place.results.load_run(unfinished)
        if _goes_on(run, ground, progress, going_on):
            stack.push(probe.pop_all())
            return run
    return None


def _goes_on(run: StoredRun, ground: Mapping[str, str], progress: Progress, going_on: bool) -> bool:
    """Whether this run is gone on with; says why, or that it could have been."""
    changes = resume.changes(run.ground, ground)
    if not going_on and not changes:
        progress.note(f"--resume would have gone on with run {run.id} ({resume.made(run)})")
    elif going_on and changes:
        progress.note(f"run {run.id} cannot be gone on with: {'; '.join(changes)}")
    elif going_on:
        end = ": all of its boots are stored" if run.finished else ""
        progress.note(f"going on with run {run.id} ({resume.made(run)}){end}")
    return going_on and not changes


def _asked(plan: RunPlan, lab: Lab) -> tuple[Asked, ...]:
    """The review ledgers of the series that the arms have revisions of."""
    names = dict.fromkeys(revision.series for arm in plan.arms for revision in arm.revisions)
    return tuple(ledger.asked(lab.series[name]) for name in names if name in lab.series)


def _check_tasks(
    plan: RunPlan, ready: _Ready, lab: Lab, checks: tuple[CheckInfo, ...]
) -> list[measure.Task]:
    """One check boot an arm: real time, so never the icount clock."""
    kind, clock = BootKind.CHECK, _real(ready.clock)
    return [
        measure.Task(
            command_line.Start(ready.images[arm.name], kind, clock, lab.sampling.seed, arm.options),
            arm.name,
            block=-1,
            order=order,
            checks=checks,
            metrics=(),
        )
        for order, arm in enumerate(plan.arms)
    ]


def _real(clock: Clock) -> Clock:
    return Clock.WALL if clock is Clock.WALL else Clock.TCG


def _bench_tasks(plan: RunPlan, ready: _Ready, lab: Lab) -> list[measure.Task]:
    metrics = tuple(m for m in ready.catalogue.metrics if ready.clock in m.clocks)
    arms = booted(plan)
    return [
        measure.Task(
            command_line.Start(
                ready.images[arm.name],
                BootKind.BENCH,
                ready.clock,
                place.seed,
                arm.options,
                cpu=model,
            ),
            place.variant,
            place.block,
            place.order,
            checks=(),
            metrics=metrics,
        )
        for block in schedule.blocks(list(arms), lab.sampling)
        for place in block
        for arm, model in [arms[place.variant]]
    ]


def booted(plan: RunPlan) -> dict[str, tuple[Variant, str]]:
    """What is booted in each block, in the order of model.bench_arms(): name -> arm, CPU model."""
    arms = {arm.name: arm for arm in plan.arms}
    again = {under(arm.name, model): arm for model in plan.sensitivity for arm in plan.arms}
    return {
        name: (arms.get(name) or again[name], cpu_of(name))
        for name in bench_arms(arms, plan.sensitivity)
    }


def _known_splats(lab: Lab) -> Sequence[console.KnownSplat]:
    file = lab.kernels / _KNOWN_SPLATS
    return console.load_known(file) if file.is_file() else ()


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
    sitting: sitting.Sitting

    def make(
        self, stage: str, tasks: Sequence[measure.Task], stored: Sequence[BootRecord], at_once: int
    ) -> None:
        """Make those boots that are not stored, ``at_once`` at a time.

        ^C ends every guest before it goes on up.
        """
        todos = resume.left(tasks, stored)
        if not todos:
            return
        with (
            self.sitting.stage(stage),
            self.progress.step(stage) as step,
            ThreadPoolExecutor(at_once) as pool,
        ):
            before = len(tasks) - len(todos) + 1
            try:
                pending = [pool.submit(self._one, todo) for todo in todos]
                for done, future in enumerate(as_completed(pending), start=before):
                    future.result()
                    step.advance(done, len(tasks))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                with proc.stopping():
                    pool.shutdown()
                raise

    def _one(self, todo: resume.Todo) -> None:
        """One boot; a lost one is tried once more, and both tries are kept."""
        for record in resume.attempts(partial(self._boot, todo), todo.attempt):
            if proc.is_stopping():
                return  # a guest that the lab killed says nothing of its kernel
            self.place.results.save_boot(self.run_id, record)
            self.sitting.tick()
            if record.outcome is not Outcome.PASSED:
                why = record.reason.split("\n", 1)[0]
                self.progress.note(f"{measure.title(todo.task)}: {record.outcome}: {why}")

    def _boot(self, todo: resume.Todo, attempt: int) -> BootRecord:
        task = todo.task
        name = resume.folder(task.start.kind, todo.number, attempt)
        folder = self.place.folder / measure.run_folder(self.run_id) / name
        # A killed lab may have left half of one.
        shutil.rmtree(folder, ignore_errors=True)
        with self.progress.step(measure.title(task)) as step:
            return measure.boot(task, self.root, self.lab, folder, attempt, self.known, step)
