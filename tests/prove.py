# SPDX-License-Identifier: GPL-2.0-or-later
"""``make prove``: the evidence that takes too long for ``make check``.

``python -m tests.prove [STEP…]`` runs the steps named, or all of STEPS. Each keeps what it
has shown in docs/evidence/<step>.json, and does not show it again while the image, the
machine and the agent's code stay the same; <step>.md says it in words. Exit codes are the
lab's: 1 when something did not turn out as claimed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console

from patchlab import (
    build,
    config,
    console,
    features,
    kvm,
    machine,
    make,
    measure,
    pristine,
    proc,
    root,
    series,
    source,
    tree,
)
from patchlab.commands.ui import Terminal
from patchlab.errors import LabError, UsageError
from patchlab.model import BootKind, BootRecord, CheckInfo, Clock, Image, Lab, Outcome, Variant
from patchlab.paths import Cache, default_cache
from patchlab.progress import Progress
from patchlab.store import content
from tests import evidence
from tests.evidence import Boot, CleanBuild, Shown

REPOSITORY = Path(__file__).resolve().parent.parent
LAB = REPOSITORY / "tests" / "planted" / "lab.toml"
EVIDENCE = REPOSITORY / "docs" / "evidence"
BASE = "base"
CONTROL = "control"  # the revision that takes a feature out
BOOTS = 20
# It changes a header that fs, mm and drivers include: the hardest case for an old tree.
CLEAN = "planted-virtio-pmem@v1"
_RECIPE = "1"  # part of every key: raise it when the same inputs are to be shown again
INTERRUPTED, BUG = 130, 3  # exit codes


@dataclass(frozen=True, slots=True)
class Proving:
    """What every step works with."""

    lab: Lab
    cache: Cache
    progress: Progress
    evidence: Path
    results: Path  # consoles and QEMU logs of the boots
    commit: str


# ---------------------------------------------------------------- seen-red: what is claimed


@dataclass(frozen=True, slots=True)
class Case:
    """One check on one image, booted with ``options``, and the outcome that it has to have."""

    check: CheckInfo
    variant: str
    options: tuple[str, ...]
    expected: Outcome


def red_cases(check: CheckInfo) -> tuple[Case, ...]:
    """What the ``red`` of a check claims; none for "".

    The form is ``VARIANT [NAME=VALUE…]``, several of them joined by ``; ``. On a control the
    feature is gone, so its checks find it unsupported there; elsewhere they fail. Raises
    UsageError for any other form.
    """
    return tuple(_claim(check, text) for text in check.red.split(";")) if check.red else ()


def _claim(check: CheckInfo, text: str) -> Case:
    words = text.split()
    names = [word for word in words if "=" not in word]
    options = tuple(words[len(names) :])
    if not names or any("=" not in word for word in options):
        raise UsageError(
            f"check {check.id}: red says {check.red!r}",
            hint="say series@revision, then kernel options as NAME=VALUE; several with '; '",
        )
    taken_out = any(name.endswith(f"@{CONTROL}") for name in names)
    expected = Outcome.UNSUPPORTED if taken_out else Outcome.FAILED
    return Case(check, " ".join(names), options, expected)


def cases(checks: Iterable[CheckInfo]) -> tuple[Case, ...]:
    """Every red case, and for each check that has one the same on the base, where it passes."""
    found: list[Case] = []
    for check in checks:
        if red := red_cases(check):
            found += [*red, Case(check, BASE, (), Outcome.PASSED)]
    return tuple(found)


# ---------------------------------------------------------------- seen-red: how it is shown


def seen_red(proving: Proving) -> list[str]:
    """Every check on every image that its ``red`` names, and on the base."""
    file = proving.evidence / "seen-red.json"
    checks = features.catalogue().checks
    wanted = cases(checks)
    variants = {case.variant: _variant(proving, case) for case in wanted}
    images = {n: build.plan_key(v, proving.lab, proving.cache) for n, v in variants.items()}
    keys = {_key(case, images[case.variant], proving.lab): case for case in wanted}
    shown = evidence.kept(evidence.load(file, Shown), keys)
    missing = {key: case for key, case in keys.items() if key not in shown}
    proving.progress.note(f"seen-red: {len(shown)} of {len(keys)} cases shown before")
    built = {
        name: build.build(variants[name], proving.lab, proving.cache, proving.progress)
        for name in dict.fromkeys(case.variant for case in missing.values())
    }
    for key, case in missing.items():
        shown[key] = _show(key, case, built[case.variant], proving)
        evidence.store(file, "seen-red", [shown[key] for key in keys if key in shown])
    ordered = [shown[key] for key in keys]
    evidence.write(file.with_suffix(".md"), evidence.seen_red_page(ordered, checks))
    return [evidence.problem(one) for one in ordered if not one.held]


def _variant(proving: Proving, case: Case) -> Variant:
    try:
        return config.find_variant(proving.lab, case.variant)
    except UsageError as error:
        raise UsageError(f"check {case.check.id}: red: {error}", hint=error.hint) from error


def _key(case: Case, image: str, lab: Lab) -> str:
    """Names all that decides what a case shows: no commit, no date."""
    return content.digest(
        *(_RECIPE, image, _machine(lab), agent_code(machine.GUEST_CODE, case.check.feature)),
        *(case.check.feature, case.check.id, case.variant, case.expected, *case.options),
    )


def _machine(lab: Lab) -> bytes:
    return msgspec.json.encode((root.key(lab.machine), lab.machine))


def agent_code(folder: Path, feature: str) -> str:
    """A digest of the agent's code without the modules of other features."""
    mine = {"__init__", feature, f"{feature}_times"}
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix in (".py", ".sh") and (file.parent.name != "features" or file.stem in mine)
    )
    return content.digest(
        *(part for file in files for part in (str(file.relative_to(folder)), file.read_bytes()))
    )


def _show(key: str, case: Case, image: Image, proving: Proving) -> Shown:
    """Boot it with this one check; a lost boot is tried once more, as in a run."""
    title = " ".join((case.check.id, "on", case.variant, *case.options))
    start = _start(image, proving, proving.lab.sampling.seed, case.options)
    name = f"seen-red-{case.check.id}-{key[:8]}"
    record = _boot(start, (case.check,), proving, f"{name}-1", 1, title)
    if record.outcome is Outcome.LOST:
        record = _boot(start, (case.check,), proving, f"{name}-2", 2, title)
    shown = from_record(key, case, record, proving.commit)
    proving.progress.note(f"{title}: {shown.outcome}" + ("" if shown.held else ", NOT as claimed"))
    return shown


def from_record(key: str, case: Case, record: BootRecord, commit: str) -> Shown:
    """What a boot of one check says of its case."""
    (result,) = (one for one in record.checks if one.id == case.check.id)
    return Shown(
        key=key,
        check=case.check.id,
        variant=case.variant,
        options=case.options,
        image=record.image_key,
        expected=case.expected,
        outcome=result.outcome,
        seen=result.seen,
        boot=record.outcome,
        reason=record.reason,
        commit=commit,
        when=record.started,
    )


def _start(
    image: Image, proving: Proving, seed: int, options: tuple[str, ...] = ()
) -> machine.Start:
    proved = kvm.remembered(proving.cache).state == "proved"
    clock = Clock.WALL if proved else Clock.TCG
    return machine.Start(image, BootKind.CHECK, clock, seed, options)


def _boot(
    start: machine.Start,
    checks: tuple[CheckInfo, ...],
    proving: Proving,
    name: str,
    attempt: int,
    title: str,
) -> BootRecord:
    task = measure.Task(start, start.image.variant, -1, 0, checks, ())
    lab = proving.lab
    guest_root = root.make(lab.machine, proving.cache, proving.progress)
    known = console.load_known(lab.kernels / "known-splats.toml")
    with proving.progress.step(title) as step:
        return measure.boot(task, guest_root, lab, proving.results / name, attempt, known, step)


# ---------------------------------------------------------------- clean-build


def clean_build(proving: Proving) -> list[str]:
    """A variant that starts from its built base has the bytes of one built cold."""
    file = proving.evidence / "clean-build.json"
    variant = config.find_variant(proving.lab, CLEAN)
    key = build.plan_key(variant, proving.lab, proving.cache)
    done = [o for o in evidence.load(file, CleanBuild) if o.key == key and o.clean == o.incremental]
    if not done:
        image = build.build(variant, proving.lab, proving.cache, proving.progress)
        begun = time.monotonic()
        digest, steps = _build_cold(variant, proving)
        seconds = time.monotonic() - begun
        sums = (image.bzimage_sha256, digest, image.build_steps, steps)
        done = [CleanBuild(key, CLEAN, *sums, seconds, proving.commit, _now())]
        evidence.store(file, "clean-build", done)
    evidence.write(file.with_suffix(".md"), evidence.clean_build_page(done[0]))
    same = done[0].clean == done[0].incremental
    return [] if same else [f"{CLEAN}: a clean build has another bzImage than an incremental one"]


def _build_cold(variant: Variant, proving: Proving) -> tuple[str, int]:
    """SHA-256 of bzImage and the steps of a build that starts from patched, clean source."""
    sources = source.fetch(variant.base, proving.cache, proving.progress)
    plan = build.plan_of(variant, proving.lab, proving.cache)

    def fill(to: Path) -> None:
        folder = to / "tree"
        # A cache of its own: the log and the count of steps are not those of the image.
        shop = build.Shop(proving.lab, Cache(to), proving.progress, os.cpu_count() or 1)
        tree.clone(sources.folder, None, folder)
        patches = series.apply(folder, variant.revisions, proving.progress)
        with pristine.guarded(sources, proving.cache):
            build.compile_tree(plan, folder, patches, shop)
        shutil.copyfile(build.product(folder, make.PRODUCTS["bzImage"]), to / "bzImage")
        shutil.rmtree(folder)

    # Not to keep it, but for its lock, and so that gc knows what a killed one left.
    room = proving.cache.room("clean")
    made = content.publish(room, plan.key, fill)
    digest = hashlib.sha256((made / "bzImage").read_bytes()).hexdigest()
    built = msgspec.json.decode((made / "built.json").read_bytes(), type=build.Built)
    content.discard(room, plan.key)
    return digest, built.steps


# ---------------------------------------------------------------- boots


def boots(proving: Proving) -> list[str]:
    """The base boots BOOTS times in a row, with every check, and no boot is lost."""
    file = proving.evidence / "boots.json"
    checks = features.catalogue().checks
    variant = config.find_variant(proving.lab, BASE)
    image_key = build.plan_key(variant, proving.lab, proving.cache)
    code = [agent_code(machine.GUEST_CODE, one) for one in dict.fromkeys(c.feature for c in checks)]
    key = content.digest(_RECIPE, image_key, _machine(proving.lab), *code)
    made = evidence.row(evidence.load(file, Boot), key)
    if len(made) < BOOTS:
        image = build.build(variant, proving.lab, proving.cache, proving.progress)
        for number in range(len(made) + 1, BOOTS + 1):
            title, name = f"boot {number} of {BOOTS}", f"boots-{number:02d}"
            record = _boot(_start(image, proving, number), checks, proving, name, 1, title)
            made.append(_of_a_row(key, number, record, proving.commit))
            evidence.store(file, "boots", made)
    evidence.write(file.with_suffix(".md"), evidence.boots_page(made, image_key))
    return [
        f"boot {one.number} of {BOOTS}: {evidence.line(f'{one.outcome}: {one.reason}')}"
        for one in made
        if not evidence.good(one)
    ]


def _of_a_row(key: str, number: int, record: BootRecord, commit: str) -> Boot:
    counts: dict[str, int] = {}
    for check in record.checks:
        counts[check.outcome] = counts.get(check.outcome, 0) + 1
    times = (record.ready_seconds, record.seconds)
    return Boot(key, number, record.outcome, record.reason, counts, *times, commit, record.started)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def lab_commit(folder: Path) -> str:
    """The lab's commit, and a word when files other than the evidence differ from it."""
    git = ("git", "-C", str(folder))
    try:
        commit = proc.run([*git, "rev-parse", "--short=12", "HEAD"], deadline=30).output.strip()
        argv = [*git, "status", "--porcelain", "--", ":/", ":(exclude,top)docs/evidence"]
        changed = proc.run(argv, deadline=60).output.strip()
    except LabError:
        return "unknown: not a git checkout"
    return f"{commit}-dirty" if changed else commit


# ---------------------------------------------------------------- the command

# Each step returns what did not turn out as claimed, one line each.
STEPS: dict[str, Callable[[Proving], list[str]]] = {
    "seen-red": seen_red,
    "clean-build": clean_build,
    "boots": boots,
}


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description=__doc__)
    parser.add_argument("steps", nargs="*", choices=STEPS, metavar="STEP", help=", ".join(STEPS))
    wanted = parser.parse_args(argv).steps or list(STEPS)
    errors = Console(stderr=True)
    with Terminal(errors) as progress:
        try:
            wrong = _prove(wanted, progress)
        except LabError as error:
            return _say(errors, [str(error), *([f"  → {error.hint}"] * bool(error.hint))], error)
        except KeyboardInterrupt as error:
            proc.terminate_all()
            return _say(errors, ["interrupted; what was shown is kept"], error)
        except Exception as error:
            return _say(errors, [traceback.format_exc(), "this is a bug in the lab"], error)
    return _say(errors, [f"not as claimed: {one}" for one in wrong], None)


def _prove(steps: Sequence[str], progress: Progress) -> list[str]:
    proving = Proving(
        lab=config.load(LAB),
        cache=default_cache(),
        progress=progress,
        evidence=EVIDENCE,
        results=REPOSITORY / "results" / "prove",
        commit=lab_commit(REPOSITORY),
    )
    wrong = []
    for step in steps:
        wrong += STEPS[step](proving)
        progress.note(f"{step}: {EVIDENCE.relative_to(REPOSITORY) / step}.md")
    return wrong


def _say(errors: Console, lines: Sequence[str], error: BaseException | None) -> int:
    for line in lines:
        errors.print(line, markup=False, highlight=False, soft_wrap=True)
    if error is None:
        return 1 if lines else 0
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return error.exit_code if isinstance(error, LabError) else BUG


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
