# SPDX-License-Identifier: GPL-2.0-or-later
"""patches/<series>/: series.toml and a folder of patches for each revision -> model.Series."""

from __future__ import annotations

import email
import email.policy
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from patchlab.config.names import did_you_mean, require_name, unknown
from patchlab.config.own import DIFF
from patchlab.config.schema import LedgerTable, PostedTable, RevisionTable, SeriesFile
from patchlab.config.toml import Document, read, shown, text_lines
from patchlab.errors import UsageError
from patchlab.model import Base, Patch, Posting, Revision, Series
from patchlab.review import Claim, Demand
from patchlab.reviews import rules

ORDER = "series"  # the file of a revision that lists its patches, one a line, as in quilt
_COVER = re.compile(r"\[[^\]]*\bPATCH[^\]]*\b0+/\d+\]", re.IGNORECASE)
_TAG = re.compile(r"^\s*\[[^\]]*\bPATCH\b[^\]]*\]\s*")


def load_all(
    folders: Iterable[Path], bases: Mapping[str, Base], features: Collection[str]
) -> dict[str, Series]:
    """Every series in ``folders``, by name. Raises UsageError for the first fault in any."""
    found: dict[str, Series] = {}
    for folder in folders:
        for file in _series_files(folder):
            series = load_series(file, bases, features)
            if series.name in found:
                message = f"{shown(file)}: series '{series.name}' exists twice"
                raise UsageError(message, hint=f"the other one: {shown(found[series.name].file)}")
            found[series.name] = series
    return found


def load_series(file: Path, bases: Mapping[str, Base], features: Collection[str]) -> Series:
    """One series.toml with the patches of its revisions."""
    document = read(file, SeriesFile)
    table = document.table
    name = file.parent.name
    with document.at(()):
        require_name("series", name)
    if table.feature not in features:
        with document.at(("feature",)):
            raise unknown("feature", table.feature, features)
    _reject_stray_folders(document)
    return Series(
        name=name,
        title=table.title,
        feature=table.feature,
        file=file,
        posted=tuple(_posting(posted) for posted in table.posted),
        revisions=tuple(_revision(document, revision, bases) for revision in table.revision),
        ledger=_ledger(document),
        claims=_claims(document),
    )


def _series_files(folder: Path) -> list[Path]:
    files = [
        child / "series.toml"
        for child in sorted(folder.iterdir())
        if child.is_dir() and not child.name.startswith(".")
    ]
    for file in files:
        if not file.is_file():
            hint = "every folder here is a series; docs/lab-toml.md says what the file holds"
            raise UsageError(f"{shown(file.parent)}: no series.toml", hint=hint)
    return files


def _posting(table: PostedTable) -> Posting:
    return Posting(who=table.who, date=table.date, what=table.what, link=table.link)


def _ledger(document: Document[SeriesFile]) -> tuple[Demand, ...]:
    _require_unlike(document, "ledger", "demand", [entry.id for entry in document.table.ledger])
    return tuple(_demand(document, index) for index in range(len(document.table.ledger)))


def _claims(document: Document[SeriesFile]) -> tuple[Claim, ...]:
    """A metric's id may be of a metric that is yet to be written, as a check's may."""
    _require_unlike(document, "claim", "claim", [entry.id for entry in document.table.claim])
    return tuple(
        Claim(
            id=entry.id,
            who=entry.who,
            date=entry.date,
            claim=entry.claim,
            metric=entry.metric,
            against=entry.against,
            clock=entry.clock,
            setup=entry.setup,
            link=entry.link,
        )
        for entry in document.table.claim
    )


def _require_unlike(
    document: Document[SeriesFile], table: str, noun: str, ids: Sequence[str]
) -> None:
    for index, one in enumerate(ids):
        if one in ids[:index]:
            what = f"{noun} '{one}' exists twice"
            raise document.error((table, index, "id"), what, hint="give it its own")


def _demand(document: Document[SeriesFile], index: int) -> Demand:
    """A check id may be of a check that is yet to be written; a rule and a revision must exist."""
    table: LedgerTable = document.table.ledger[index]
    for place, rule in enumerate(table.rules):
        with document.at(("ledger", index, "rules", place)):
            _require_rule(rule)
    return Demand(
        id=table.id,
        who=table.who,
        date=table.date,
        demand=table.demand,
        checks=table.checks,
        rules=table.rules,
        answered=_answers(document, index),
    )


def _require_rule(text: str) -> None:
    name, colon, _ = text.partition(":")
    if name not in rules.RULES:
        raise unknown("static rule", name, rules.RULES)
    wanted = rules.RULES[name].argument
    if bool(colon) != bool(wanted):
        hint = f"write {name}:{wanted}" if wanted else f"write {name}"
        what = "needs an argument" if wanted else "takes no argument"
        raise UsageError(f"static rule '{name}' {what}", hint=hint)


def _answers(document: Document[SeriesFile], index: int) -> dict[str, str]:
    answered, revisions = document.table.ledger[index].answered, document.table.revision
    if isinstance(answered, str):
        return dict.fromkeys(revisions, answered) if answered else {}
    for name in answered:
        if name not in revisions:
            with document.at(("ledger", index, "answered", name)):
                raise unknown("revision", name, revisions)
    return dict(answered)


def _reject_stray_folders(document: Document[SeriesFile]) -> None:
    """A folder of patches that series.toml does not know would be left out in silence."""
    declared = document.table.revision
    for child in sorted(document.file.parent.iterdir()):
        if (child / ORDER).is_file() and child.name not in declared:
            hint = did_you_mean(child.name, declared) or f"add [revision.{child.name}]"
            raise document.error((), f"folder '{child.name}' is not among the revisions", hint=hint)


def _revision(document: Document[SeriesFile], name: str, bases: Mapping[str, Base]) -> Revision:
    table: RevisionTable = document.table.revision[name]
    folder = document.file.parent / name
    with document.at(("revision", name)):
        require_name("revision", name)
        if not folder.is_dir():
            hint = "it holds the patches of the revision and a file 'series' that lists them"
            raise UsageError(f"revision '{name}' has no folder {shown(folder)}", hint=hint)
    for index, base in enumerate(table.bases):
        if base not in bases:
            with document.at(("revision", name, "bases", index)):
                raise unknown("base", base, bases)
    return Revision(
        series=document.file.parent.name,
        name=name,
        bases=table.bases,
        patches=_patches(folder),
        min_context=table.min_context,
        about=table.about,
    )


def _patches(folder: Path) -> tuple[Patch, ...]:
    """The listed patches, in the order of the list; a cover letter, listed or not, is left out."""
    order = folder / ORDER
    there = {file.name for file in folder.glob("*.patch")}
    listed: list[str] = []
    for number, line in enumerate(text_lines(order), 1):
        name = line.partition("#")[0].strip()
        if not name:
            continue
        where = f"{shown(order)}:{number}"
        if name in listed:
            raise UsageError(f"{where}: '{name}' is listed twice", hint="list it once")
        if name not in there:
            raise _no_patch(folder, name, there, where)
        listed.append(name)
    covers = {name for name in there if _is_cover(_read(folder / name))}
    for name in sorted(there - covers - set(listed)):
        message = f"{shown(order)}: '{name}' is in the folder and not listed"
        raise UsageError(message, hint="list it where it belongs, or take it out of the folder")
    patches = tuple(_patch(folder / name) for name in listed if name not in covers)
    if not patches:
        hint = "git format-patch writes the files; list them one a line"
        raise UsageError(f"{shown(order)}: lists no patch", hint=hint)
    return patches


def _no_patch(folder: Path, name: str, there: Collection[str], where: str) -> UsageError:
    """The error for a listed name that is no patch of the folder, though perhaps a file in it."""
    if Path(name).name != name or not (folder / name).is_file():
        error = unknown("patch", name, there, where=" in this folder")
        return UsageError(f"{where}: {error}", hint=error.hint)
    hint = (
        "git mailsplit splits an mbox into mails, git format-patch writes *.patch; or name it "
        f'as it is, in no list: runner.py check "base + {shown(folder / name)}"'
    )
    return UsageError(f"{where}: '{name}' is here, but only *.patch counts", hint=hint)


def _is_cover(data: bytes) -> bool:
    """Whether this is mail 0 of a series, without a diff, as git format-patch writes it."""
    return not DIFF.search(data) and bool(_COVER.match(_subject_line(data)))


def _patch(file: Path) -> Patch:
    data = _read(file)
    title = subject(data, shown(file))
    if not DIFF.search(data):
        hint = "write it with git format-patch again, or take it out of the folder and the list"
        raise UsageError(f"{shown(file)}: no diff in it", hint=hint)
    return Patch(file=file, subject=title, sha256=hashlib.sha256(data).hexdigest())


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{shown(file)}: {error.strerror}") from None


def subject(data: bytes, where: str) -> str:
    """The subject of a format-patch file, unfolded, decoded, without ``[PATCH …]``.

    Raises UsageError, headed by ``where``, when there is none.
    """
    short = _TAG.sub("", _subject_line(data))
    if not short:
        hint = "write it with git format-patch"
        raise UsageError(f"{where}: no Subject: line, so not a format-patch file", hint=hint)
    return short


def _subject_line(data: bytes) -> str:
    """Unfolded and decoded, with its tag; "" without one."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    return " ".join(str(message.get("Subject", "")).split())
