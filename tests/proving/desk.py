# SPDX-License-Identifier: GPL-2.0-or-later
"""What every step of ``make prove`` works with."""

from __future__ import annotations

import ast
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from modulefinder import ModuleFinder
from pathlib import Path

import msgspec

from patchlab import proc
from patchlab.errors import LabError
from patchlab.guests import command_line, console, kvm, root
from patchlab.model import Image, Lab, Machine
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.record import BootKind, BootRecord, CheckInfo, Clock
from patchlab.runs import measure, resume
from patchlab.store import content

REPOSITORY = Path(__file__).resolve().parents[2]
LAB = REPOSITORY / "tests" / "planted" / "lab.toml"
EVIDENCE = REPOSITORY / "docs" / "evidence"
BASE = "base"
CONTROL = "control"  # the revision that takes a feature out
RECIPE = "1"  # part of every key: raise it when the same inputs are to be shown again


@dataclass(frozen=True, slots=True)
class Proving:
    """What every step works with."""

    lab: Lab
    cache: Cache
    progress: Progress
    evidence: Path
    results: Path  # consoles and QEMU logs of the boots
    commit: str
    only: frozenset[str] = frozenset()  # ids of checks or names of variants; all, if empty


def machine_key(lab: Lab) -> bytes:
    """Names the machine by what differs from its defaults: a new setting changes no key."""
    plain = {field.name: field.default for field in fields(Machine)}
    said = {name: getattr(lab.machine, name) for name in plain}
    chosen = {name: value for name, value in said.items() if value != plain[name]}
    return msgspec.json.encode((root.key(lab.machine), chosen))


def agent_code(folder: Path, feature: str) -> str:
    """A digest of the code that the agent runs for one feature.

    That is what agent.py and the feature's modules import, and what they import in turn; the
    modules of other features, which agent.py imports too, are left out if no module of this one
    imports them.
    """
    folder = folder.resolve()
    features = folder / "features"
    others = {file.stem for file in features.glob("*.py")} - _wanted(features, feature)
    finder = ModuleFinder(
        path=[str(folder.parent)],
        excludes=[f"{features.parent.name}.features.{name}" for name in others - {"__init__"}],
    )
    finder.run_script(str(folder / "agent.py"))
    for file in sorted(features.glob(f"{feature}*.py")):
        finder.import_hook(f"{folder.name}.features.{file.stem}")
    origins = (vars(module)["__file__"] for module in finder.modules.values())
    files = {Path(origin) for origin in origins if origin}
    return content.digest(
        *(
            part
            for file in sorted(files | set(folder.glob("*.sh")))
            for part in (str(file.relative_to(folder)), file.read_bytes())
        )
    )


def _wanted(features: Path, feature: str) -> set[str]:
    """The modules of a feature, and those of other features that they import."""
    found = {file.stem for file in features.glob(f"{feature}*.py")}
    pending = list(found)
    while pending:
        text = (features / f"{pending.pop()}.py").read_text()
        names = _imported_features(ast.parse(text))
        new = {name for name in names if (features / f"{name}.py").is_file()} - found
        found |= new
        pending += new
    return found


def _imported_features(code: ast.Module) -> set[str]:
    """X of ``from guest.features import X`` and of ``from guest.features.X import …``."""
    found: set[str] = set()
    for node in ast.walk(code):
        if isinstance(node, ast.ImportFrom) and node.module:
            _, *words = node.module.split(".")
            if words[:1] == ["features"]:
                found.update(words[1:2] or [one.name for one in node.names])
    return found


def start(
    image: Image, proving: Proving, seed: int, options: tuple[str, ...] = ()
) -> command_line.Start:
    proved = kvm.remembered(proving.cache).state == "proved"
    clock = Clock.WALL if proved else Clock.TCG
    return command_line.Start(image, BootKind.CHECK, clock, seed, options)


def boot(
    start: command_line.Start,
    checks: tuple[CheckInfo, ...],
    proving: Proving,
    name: str,
    title: str,
    attempts: int = resume.ATTEMPTS,
) -> BootRecord:
    """A boot for the evidence, in a folder of the results; a lost one is made once more."""
    task = measure.Task(start, start.image.variant, -1, 0, checks, ())
    lab = proving.lab
    guest_root = root.make(lab.machine, proving.cache, proving.progress)
    known = console.load_known(lab.kernels / "known-splats.toml")

    def make(attempt: int) -> BootRecord:
        folder = proving.results / f"{name}-{attempt}"
        with proving.progress.step(title) as step:
            return measure.boot(task, guest_root, lab, folder, attempt, known, step)

    *lost, record = resume.attempts(make, last=attempts)
    for one in lost:
        proving.progress.note(f"{title}: lost, and made again: {one.reason}")
    return record


def now() -> str:
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
