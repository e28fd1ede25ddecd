# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's own patches as a part of a variant: a file or folder -> model.Revision.

A patch, an mbox, or a folder with a ``series`` file or ``*.patch`` files. It is split into
one file a patch, decoded, in the cache: what is built is what was read, also when the user
goes on editing. Its name has the digest of what was read, so that a report tells one state
of a file from the next.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchlab import proc
from patchlab.config.names import NAME, did_you_mean
from patchlab.config.toml import shown, text_lines, user_path
from patchlab.errors import UsageError
from patchlab.model import Patch, Revision
from patchlab.paths import Cache
from patchlab.store import content

SUFFIXES = (".patch", ".diff", ".mbox", ".eml")
DIGITS = 8  # of the digest in a name
_ORDER = "series"
_ROOM = "patches"
_DEADLINE = 120.0
_RECIPE = "2"  # part of every name: raise it when the same file would be split otherwise
_MAIL = re.compile(rb"\A(?:From |(?:[A-Za-z][A-Za-z0-9-]*): )")
DIFF = re.compile(rb"^(?:diff --git |--- |Index: )", re.MULTILINE)
_TAG = re.compile(r"^\[[^\]]*\bPATCH(?:v\d+)?\b[^\]]*?(?:(\d+)/(\d+))?\]\s*", re.IGNORECASE)
_VERSION = re.compile(r"(?:\b|PATCH)v(\d+)\b", re.IGNORECASE)
_SPLIT = re.compile(r"\+")


@dataclass(frozen=True, slots=True)
class _Patch:
    subject: str
    number: tuple[int, int] | None  # 2/5 of [PATCH 2/5]
    version: int | None  # 3 of [PATCH v3], 1 of [PATCH]; None without a tag
    data: bytes


def is_path(text: str) -> bool:
    """Whether a part of a variant's name is a path: no series, revision or fragment has these."""
    return "/" in text or text.endswith(SUFFIXES)


def parts(text: str, folder: Path) -> list[str]:
    """The parts of a variant's name, stripped. A ``+`` in the name of a file is part of it."""
    ends = [*(match.start() for match in _SPLIT.finditer(text)), len(text)]
    found: list[str] = []
    start = 0
    while ends:
        end = next(iter(_existing(text, start, ends, folder)), ends[0])
        found.append(text[start:end].strip())
        start = end + 1
        ends = [one for one in ends if one > end]
    return found


def _existing(text: str, start: int, ends: list[int], folder: Path) -> Iterator[int]:
    """Where a file's name that begins at ``start`` may end; the longest first."""
    for end in reversed(ends):
        part = text[start:end].strip()
        with contextlib.suppress(OSError):  # a name may be too long to ask for
            if is_path(part) and (folder / user_path(part)).exists():
                yield end


def revision(text: str, base: str, folder: Path, cache: Cache) -> Revision:
    """What the path ``text``, which starts at ``folder``, means on ``base``.

    Raises UsageError for what is not there or has no patch in it.
    """
    path = folder / user_path(text)
    if not path.exists():
        raise _absent(text, path, folder)
    files = _files(path)
    digest = content.digest(_RECIPE, *(part for file in files for part in (file.name, _read(file))))
    name = digest[:DIGITS]
    series = _series_name(path)

    def split(to: Path) -> None:
        found = list(_patches(path, files, to))
        if not (path / _ORDER).is_file():  # who lists them has chosen
            _require_one_version(path, found)
        for number, patch in enumerate(_ordered(found), 1):
            (to / f"{number:04d}-{_slug(patch.subject)}.patch").write_bytes(patch.data)

    made = content.publish(cache.room(_ROOM), f"{series}@{digest}", split)
    patches = tuple(_patch(file) for file in sorted(made.glob("*.patch")))
    return Revision(series, name, (base,), patches, 3, about=shown(path), origin=path)


def kept(name: str, base: str, cache: Cache) -> Revision | None:
    """The revision that reports call ``my@1a2b3c4d``, from the cache; None if it is not there.

    So a run goes on when the user's file has changed or gone.
    """
    series, _, digest = name.partition("@")
    if not re.fullmatch(rf"[0-9a-f]{{{DIGITS}}}", digest) or not re.fullmatch(NAME, series):
        return None
    for folder in sorted(cache.room(_ROOM).glob(f"{series}@{digest}*")):
        patches = tuple(_patch(file) for file in sorted(folder.glob("*.patch")))
        return Revision(series, digest, (base,), patches, 3, about=shown(folder), origin=folder)
    return None


def _absent(text: str, path: Path, folder: Path) -> UsageError:
    beside: list[str] = []
    with contextlib.suppress(OSError):
        beside = [other.name for other in path.parent.iterdir()]
    if user_path(text).is_absolute():
        where = f"there is no such file; the folder {path.parent} is "
        where += "there" if path.parent.is_dir() else "not there either"
    else:
        where = f"paths start at {shown(folder)}/"
    hint = " ".join(part for part in (did_you_mean(path.name, beside), where) if part)
    return UsageError(f"no file or folder {shown(path)}", hint=hint)


def _series_name(path: Path) -> str:
    """A name in the form of a series' from the file's: ``My fix.patch`` is ``my-fix``."""
    stem = path.resolve().name if path.is_dir() else path.stem
    plain = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("._-")
    return plain or "own"


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    order = path / _ORDER
    files = list(_listed(order)) if order.is_file() else sorted(path.glob("*.patch"))
    if not files:
        hint = "it holds *.patch files, or a file 'series' that lists them"
        raise UsageError(f"{shown(path)}: no patch in this folder", hint=hint)
    return files


def _listed(order: Path) -> Iterator[Path]:
    """The patches of a quilt series file, in its order."""
    for number, line in enumerate(text_lines(order), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        file = order.parent / words[0]
        if not file.is_file():
            where = f"{shown(order)}:{number}"
            raise UsageError(
                f"{where}: no patch '{words[0]}' in this folder", hint="correct the list"
            )
        if words[1:] not in ([], ["-p1"]):
            where = f"{shown(order)}:{number}"
            raise UsageError(f"{where}: {' '.join(words[1:])} is not known", hint="patches are -p1")
        yield file


def _patches(path: Path, files: list[Path], to: Path) -> Iterator[_Patch]:
    """Every patch of the files; a cover letter or a reply, which changes nothing, is left out."""
    found = 0
    for file in files:
        data = _read(file)
        for patch in (
            _mails(file, data, to) if _MAIL.match(data) else [_Patch(file.stem, None, None, data)]
        ):
            if DIFF.search(patch.data):
                found += 1
                yield patch
    if not found:
        hint = "git format-patch or git diff writes one"
        raise UsageError(f"{shown(path)}: no patch in it", hint=hint)


def _mails(file: Path, data: bytes, to: Path) -> Iterator[_Patch]:
    folder = to / "mails"
    folder.mkdir()
    if data.startswith(b"From "):
        _git(file, "mailsplit", "--keep-cr", f"-o{folder}", "--", str(file.resolve()))
    else:
        (folder / "0001").write_bytes(data)
    for mail in sorted(folder.iterdir()):
        yield _decoded(file, mail)
    for left in folder.iterdir():
        left.unlink()
    folder.rmdir()


def _decoded(file: Path, mail: Path) -> _Patch:
    """One mail as a format-patch file in UTF-8, whatever way it was sent."""
    message, diff = mail.with_suffix(".message"), mail.with_suffix(".diff")
    raw = mail.read_bytes()
    said = _git(
        file, "mailinfo", "--encoding=UTF-8", "-k", str(message), str(diff), stdin=raw
    ).output
    fields = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    title = fields.get("Subject", "")
    tag = _TAG.match(title)
    subject = (title[tag.end() :] if tag else title) or file.stem
    number = (int(tag[1]), int(tag[2])) if tag and tag[1] else None
    said_version = _VERSION.search(tag[0]) if tag else None
    version = (int(said_version[1]) if said_version else 1) if tag else None
    head = (
        f"From: {fields.get('Author', '')} <{fields.get('Email', '')}>\n"
        f"Date: {fields.get('Date', '')}\nSubject: [PATCH] {subject}\n\n"
    )
    body = message.read_bytes() + b"---\n" + diff.read_bytes()
    message.unlink()
    diff.unlink()
    return _Patch(subject, number, version, head.encode() + body)


def _require_one_version(path: Path, patches: Sequence[_Patch]) -> None:
    """Raises UsageError for two versions of a series, which would be stacked on each other."""
    versions = sorted({patch.version for patch in patches if patch.version is not None})
    if len(versions) < 2:
        return
    named = " and ".join(f"v{version}" for version in versions)
    if path.is_dir():
        hint = f"list the patches of one of them in its file '{_ORDER}'"
    else:
        hint = "take the mails of the others out, or save the newest only: b4 am MESSAGE-ID"
    raise UsageError(f"{shown(path)} holds {named} of the series", hint=hint)


def _ordered(patches: Iterable[_Patch]) -> list[_Patch]:
    """As they stand, or by their numbers when every one has its own: a thread has no order."""
    found = list(patches)
    numbers = {patch.number for patch in found}
    totals = {number[1] for number in numbers if number}
    if len(numbers) == len(found) and None not in numbers and len(totals) == 1:
        found.sort(key=lambda patch: patch.number or (0, 0))
    return found


def _git(file: Path, *words: str, stdin: bytes | None = None) -> proc.Completed:
    env = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_DIR": "/nonexistent"}
    try:
        return proc.run(["git", *words], deadline=_DEADLINE, env=env, stdin=stdin)
    except proc.CommandFailed as error:
        message = f"{shown(file)}: git {words[0]} cannot read it\n{error.tail}"
        raise UsageError(message, hint="git format-patch --stdout writes an mbox") from error


def _patch(file: Path) -> Patch:
    data = file.read_bytes()
    match = re.match(rb"From: .*\nDate: .*\nSubject: \[PATCH\] (.*)\n", data)
    subject = match[1].decode("utf-8", "replace") if match else file.stem[5:]
    return Patch(file, subject, hashlib.sha256(data).hexdigest())


def _slug(subject: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", subject).strip("-.")[:52] or "patch"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{shown(file)}: {error.strerror}") from None
