# SPDX-License-Identifier: GPL-2.0-or-later
"""Source + revisions -> patched tree, with proof that every patch went in.

``git apply`` refuses paths outside the tree, through symbolic links and into ``.git``. It
has a trap: inside some other repository's subfolder it takes that repository's root as its
own, finds none of the files, changes nothing and exits 0. So repositories above the tree
are hidden from it, and every file that a patch names is looked at before and after.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchlab import proc
from patchlab.errors import PatchError
from patchlab.model import AppliedPatch, Fit, Patch, Revision
from patchlab.progress import Progress

_DEADLINE = 120.0
FULL_CONTEXT = 3  # what git format-patch writes
_OFFSET = re.compile(r"^Hunk #\d+ succeeded at \d+ \(offset", re.MULTILINE)
_REDUCED = "Context reduced to "
_REFUSED = re.compile(r"^error: patch failed: (?P<file>.*):(?P<line>\d+)$", re.MULTILINE)
_HUNK = re.compile(r"^@@ -(?P<start>\d+)(?:,(?P<old>\d+))? \+\d+(?:,(?P<new>\d+))? @@")
_MOVED = re.compile(r"^rename from (?P<name>.+)$")


@dataclass(frozen=True, slots=True)
class _Hunk:
    file: str
    number: int  # 1-based in its file
    start: int  # first line, before the patch


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a patch says of itself."""

    moved_from: tuple[str, ...]
    hunks: tuple[_Hunk, ...]


def apply(
    tree: Path, revisions: Sequence[Revision], progress: Progress
) -> tuple[AppliedPatch, ...]:
    """Apply the patches of ``revisions``, in order, to ``tree``, which is changed in place.

    A patch goes in whole or not at all: it is checked against the tree before it is
    applied. Those before it stay, so on PatchError the caller throws the tree away. The
    error names series, revision, patch, file and hunk, and in a stack the series that
    changed the same file before.
    """
    applied: list[AppliedPatch] = []
    for revision in revisions:
        for patch in revision.patches:
            progress.note(f"{revision}: {patch.file.name}")
            applied.append(_apply_one(tree, revision, patch, applied))
    return tuple(applied)


def _apply_one(
    tree: Path, revision: Revision, patch: Patch, before: Sequence[AppliedPatch]
) -> AppliedPatch:
    where = f"{revision}: {patch.file}"
    data = patch.file.read_bytes()
    if hashlib.sha256(data).hexdigest() != patch.sha256:
        raise PatchError(
            f"{where}: the file has changed since it was read",
            hint="start again; a published revision is never edited, a new one is added",
        )
    contents = _read(data.decode("utf-8", "replace"))
    options = _fitting_options(tree, revision, patch, contents, before, data)
    files = _named_files(tree, data, contents)
    states = {name: _state(tree / name) for name in files}
    done = _git(tree, [*options, "--verbose"], data)
    unchanged = [name for name in files if _state(tree / name) == states[name]]
    if done.code or unchanged or not files:
        raise PatchError(
            f"{where}: git apply said that it applied, and did not change "
            f"{', '.join(unchanged) or 'anything'}\n{_printable(done.output)}",
            hint="is this patch in the base, or in an earlier patch, already?",
        )
    return AppliedPatch(
        series=revision.series,
        revision=revision.name,
        patch=patch.file.name,
        sha256=patch.sha256,
        fit=_fit(done.output),
        files=files,
    )


def _fitting_options(
    tree: Path,
    revision: Revision,
    patch: Patch,
    contents: _Contents,
    before: Sequence[AppliedPatch],
    data: bytes,
) -> list[str]:
    """The strictest options with which the patch applies; changes nothing."""
    first = _git(tree, ["--check"], data)
    if first.code == 0:
        return []
    for context in range(FULL_CONTEXT - 1, revision.min_context - 1, -1):
        if _git(tree, ["--check", f"-C{context}"], data).code == 0:
            return [f"-C{context}"]
    raise _refusal(revision, patch, contents, before, first.output)


def _refusal(
    revision: Revision,
    patch: Patch,
    contents: _Contents,
    before: Sequence[AppliedPatch],
    said: str,
) -> PatchError:
    file = f"{patch.file.name} of {revision.origin}" if revision.origin else patch.file
    message = f"{revision}: {file} does not apply"
    for match in _REFUSED.finditer(said):
        message += f"\n  {_place(match['file'], int(match['line']), contents)}"
        message += _others(match["file"], revision, before)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    message += "\n" + "\n".join(f"  {_printable(line)}" for line in errors or said.splitlines())
    if revision.origin:
        return PatchError(message, hint=f"rebase it on the source of {revision.bases[0]}")
    allowed = f"min_context = {revision.min_context}"
    return PatchError(
        message,
        hint=f"is the series for another base? It may apply with less context than {allowed} "
        "in its series.toml allows; otherwise add a revision that is rebased",
    )


def _place(file: str, line: int, contents: _Contents) -> str:
    numbers = [hunk.number for hunk in contents.hunks if (hunk.file, hunk.start) == (file, line)]
    hunk = f"hunk {numbers[0]}" if numbers else "hunk"
    return f"{_printable(file)}: {hunk}, line {line}"


def _others(file: str, revision: Revision, before: Sequence[AppliedPatch]) -> str:
    names: dict[str, list[str]] = {}
    for patch in before:
        if file in patch.files and patch.series != revision.series:
            names.setdefault(f"{patch.series}@{patch.revision}", []).append(patch.patch)
    told = (f"{name}: {', '.join(patches)}" for name, patches in names.items())
    return f" (already changed by {_printable('; '.join(told))})" if names else ""


def _fit(said: str) -> Fit:
    if _REDUCED in said:
        return Fit.REDUCED
    return Fit.OFFSET if _OFFSET.search(said) else Fit.EXACT


def _git(tree: Path, options: Sequence[str], patch: bytes) -> proc.Completed:
    return proc.run(
        ["git", "apply", "--whitespace=nowarn", *options],
        stdin=patch,
        deadline=_DEADLINE,
        cwd=tree,
        env=_environment(tree),
        ok=(0, 1, 128),
    )


def _environment(tree: Path) -> Mapping[str, str]:
    return {
        "GIT_CEILING_DIRECTORIES": str(tree.resolve().parent),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "HOME": "/nonexistent",
    }


def _named_files(tree: Path, patch: bytes, contents: _Contents) -> tuple[str, ...]:
    """Every file that the patch changes, as git itself reads the patch."""
    listing = _git(tree, ["--numstat", "-z"], patch)
    rows = [row.split("\t", 2) for row in listing.output.split("\0") if row]
    names = [row[2] for row in rows if len(row) == 3]
    return tuple(dict.fromkeys([*names, *contents.moved_from]))


def _read(text: str) -> _Contents:
    """Files and hunks of a patch. Lines of a hunk are counted off, whatever they look like."""
    moved: list[str] = []
    hunks: list[_Hunk] = []
    file, number, old, new = "", 0, 0, 0
    header = False  # a changelog may say "rename from" too
    for line in text.split("\n"):
        if old > 0 or new > 0:
            old -= line[:1] in (" ", "-", "")
            new -= line[:1] in (" ", "+", "")
        elif line.startswith("diff --git "):
            header = True
        elif line.startswith("--- "):
            file, number = _stripped(line[4:]), 0
        elif line.startswith("+++ ") and not line.startswith("+++ /dev/null"):
            file = _stripped(line[4:])
        elif match := _HUNK.match(line):
            number, header = number + 1, False
            old, new = int(match["old"] or 1), int(match["new"] or 1)
            hunks.append(_Hunk(file, number, int(match["start"])))
        elif header and (match := _MOVED.match(line)):
            moved.append(match["name"])
    return _Contents(tuple(moved), tuple(hunks))


def _stripped(name: str) -> str:
    """``a/fs/fuse/file.c`` -> ``fs/fuse/file.c``, as ``git apply -p1`` does."""
    return name.split("\t", 1)[0].strip().partition("/")[2]


def _state(path: Path) -> str:
    """What of a file a patch can change: that it is there, its kind and mode, its content."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return "absent"
    if stat.S_ISLNK(status.st_mode):
        return f"link {path.readlink()}"
    if not stat.S_ISREG(status.st_mode):
        return f"{status.st_mode:o}"
    return f"{status.st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _printable(text: str) -> str:
    """A patch may hold terminal escapes in its names."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
