# SPDX-License-Identifier: GPL-2.0-or-later
"""Arms -> what every static rule of their ledgers says, from the cache or decided now.

The scripts come from the pristine source, the files that they read from a patched copy of
it; both are shown to them read-only, in the sandbox.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from patchlab import host, proc, sandbox
from patchlab.building import series
from patchlab.model import Lab, Revision, Variant
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.review import RuleResult
from patchlab.reviews import patchtext, rules
from patchlab.reviews.rules import CannotTell, Decision, FileChange, Material
from patchlab.sources import source
from patchlab.store import content

# Part of every key: raise it when a rule would say something else of the same patches.
_RECIPE = "1"
_ROOM = "reviews"
_FILE = "decisions.json"
_DEADLINE = 120.0
_CHECKPATCH = "scripts/checkpatch.pl"
_KERNEL_DOC = "scripts/kernel-doc"


@dataclass(frozen=True, slots=True)
class Subject:
    """One revision as an arm has it: after those that the arm applies before it."""

    variant: Variant
    place: int

    @property
    def revision(self) -> Revision:
        return self.variant.revisions[self.place]

    @property
    def before(self) -> Sequence[Revision]:
        return self.variant.revisions[: self.place]


def inspect(
    arms: Sequence[Variant], lab: Lab, cache: Cache, progress: Progress
) -> tuple[RuleResult, ...]:
    """Every rule that a ledger names, on every revision of that series among the arms.

    A rule that cannot run is ``undecided`` with its remedy. Raises PatchError for patches
    that do not apply, and what fetching the source raises.
    """
    found: list[RuleResult] = []
    for arm in arms:
        for place, revision in enumerate(arm.revisions):
            names = rules_of(lab, revision)
            if names:
                decisions = _decisions(Subject(arm, place), names, cache, progress)
                found += [
                    RuleResult(
                        arm.name, revision.series, revision.name, rule, d.ruling, d.seen, d.remedy
                    )
                    for rule, d in decisions.items()
                ]
    return tuple(found)


def rules_of(lab: Lab, revision: Revision) -> tuple[str, ...]:
    """The rules that the ledger of the revision's series names, each once.

    A revision that is not in the lab's own series has none.
    """
    known = lab.series.get(revision.series)
    demands = known.ledger if known else ()
    return tuple(dict.fromkeys(rule for demand in demands for rule in demand.rules))


def _decisions(
    subject: Subject, names: tuple[str, ...], cache: Cache, progress: Progress
) -> dict[str, Decision]:
    room, key = cache.room(_ROOM), _key(subject, names, cache)

    def fill(to: Path) -> None:
        pristine = source.fetch(subject.variant.base, cache, progress).folder
        with progress.step(f"static rules on {subject.revision}"):
            decided = decide(subject, names, pristine, to / "trees", progress)
        (to / _FILE).write_bytes(msgspec.json.encode(decided))

    folder = content.publish(room, key, fill)
    decisions = msgspec.json.decode((folder / _FILE).read_bytes(), type=dict[str, Decision])
    # What a tool could not tell today, it may be able to tell tomorrow.
    if any(decision.remedy for decision in decisions.values()):
        content.discard(room, key)
    return decisions


def _key(subject: Subject, names: tuple[str, ...], cache: Cache) -> str:
    return content.digest(
        _RECIPE,
        source.key(subject.variant.base, cache),
        *names,
        *(
            f"{patch.file.name} {patch.sha256} -C{revision.min_context}"
            for revision in (*subject.before, subject.revision)
            for patch in revision.patches
        ),
    )


def decide(
    subject: Subject, names: Sequence[str], pristine: Path, folder: Path, progress: Progress
) -> dict[str, Decision]:
    """Apply the revision to the files that it names, in ``folder``, and ask every rule.

    ``folder`` is gone afterwards. Raises PatchError.
    """
    before, after = folder / "before", folder / "after"
    for tree in (before, after):
        tree.mkdir(parents=True)
        copy_named(pristine, (*subject.before, subject.revision), tree)
        series.apply(tree, subject.before, progress)
    applied = series.apply(after, [subject.revision], progress)
    material = Material(
        patches=tuple(
            patchtext.read(patch.file.name, patch.file.read_bytes())
            for patch in subject.revision.patches
        ),
        changes=tuple(
            FileChange(name, _text(before, name), _text(after, name))
            for name in dict.fromkeys(file for patch in applied for file in patch.files)
        ),
        tools=Scripts(pristine, before, after),
    )
    decisions = {name: rules.decide(name, material) for name in names}
    shutil.rmtree(folder)
    return decisions


# Lines of a patch that may name a file; too many do no harm, a whole tree takes ten seconds.
_NAMES = re.compile(
    r"^(?:--- a/|\+\+\+ b/|rename from |copy from |diff --git a/.* b/)([^\t\n]+)", re.MULTILINE
)


def copy_named(pristine: Path, revisions: Sequence[Revision], to: Path) -> None:
    """Copy what the revisions' patches may touch: the files of ``pristine`` that they name."""
    for patch in (patch for revision in revisions for patch in revision.patches):
        text = patch.file.read_text(encoding="utf-8", errors="replace")
        for name in dict.fromkeys(match[1] for match in _NAMES.finditer(text)):
            if ".." in Path(name).parts or not _is_inside(pristine, name):
                continue
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(pristine / name, to / name)


def _is_inside(folder: Path, name: str) -> bool:
    """Whether that is a file of the folder: no link, and nothing through a link to elsewhere."""
    path = folder / name
    inside = path.resolve().is_relative_to(folder.resolve())
    return inside and path.is_file() and not path.is_symlink()


def _text(folder: Path, name: str) -> str:
    """A file of a tree that a patch has been applied to, or ""."""
    if not _is_inside(folder, name):
        return ""
    return (folder / name).read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class Scripts:
    """The pristine source's own scripts. ``path`` replaces the $PATH that perl is looked for in."""

    pristine: Path
    before: Path
    after: Path
    path: str = sandbox.PATH

    def checkpatch(self, patch: bytes) -> str:
        options = ["--strict", "--terse", "--show-types", "--showfile", "--color=never"]
        argv = [*self._perl(_CHECKPATCH), *options, f"--root={self.pristine}", "-"]
        done = self._run(argv, self.pristine, patch)
        # 1 is also what the box gives when it does not start.
        if done.code and "\ntotal: " not in f"\n{done.output}":
            raise CannotTell(f"checkpatch.pl did not end: {_last(done.output)}", hint=_BOX)
        return done.output

    def kernel_doc(self, path: str) -> tuple[str, str]:
        return self._kernel_doc(self.before, path), self._kernel_doc(self.after, path)

    def _kernel_doc(self, folder: Path, path: str) -> str:
        if not _text(folder, path):
            return ""
        # A name that begins with "-" must not be taken for an option.
        done = self._run([*self._perl(_KERNEL_DOC), "-none", f"./{path}"], folder, b"")
        if done.code:
            raise CannotTell(f"kernel-doc did not end: {_last(done.output)}", hint=_BOX)
        return done.output

    def _perl(self, script: str) -> list[str]:
        if not (self.pristine / script).is_file():
            raise CannotTell(
                f"the base's source has no {script}", hint="use a base whose source has it"
            )
        if shutil.which("perl", path=self.path) is None:
            raise CannotTell("this host has no perl", hint=host.install_line(("perl",)))
        return ["perl", str(self.pristine / script)]

    def _run(self, argv: Sequence[str], cwd: Path, stdin: bytes) -> proc.Completed:
        shown = tuple(dict.fromkeys((self.pristine, self.before, self.after)))
        box = sandbox.bubblewrap(argv, cwd=cwd, read=shown)
        try:
            return proc.run(box, deadline=_DEADLINE, stdin=stdin, ok=(0, 1))
        except proc.CommandFailed as error:
            raise CannotTell(f"{argv[1]}: {_last(error.tail)}", hint=_BOX) from error


_BOX = "runner.py doctor tries the box that it runs in"


def _last(output: str) -> str:
    return (output.strip().splitlines() or ["it said nothing"])[-1]
