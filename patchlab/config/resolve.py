# SPDX-License-Identifier: GPL-2.0-or-later
"""The name of a variant -> model.Variant. Decides only; reads nothing but folder listings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from patchlab.config.names import unknown
from patchlab.errors import UsageError
from patchlab.model import Base, Lab, Revision, Series, Variant

BASE = "base"
CONFIG = "config:"
_FORM = "base, series@revision, a@v1 + b@v2, base + config:debug"


def fragments(kernels: Path) -> frozenset[str]:
    """The names of the config fragments: kernels/config/<name>.config."""
    return frozenset(file.stem for file in (kernels / "config").glob("*.config"))


def variant(
    bases: Mapping[str, Base],
    series: Mapping[str, Series],
    known_fragments: Collection[str],
    text: str,
    base_name: str,
    extra_fragments: Sequence[str] = (),
) -> Variant:
    """What ``text`` means on the base ``base_name``; the result's name is canonical.

    ``text`` is parts joined by ``+``: ``base`` (first, may be left out before others),
    ``series@revision`` in the order they are applied, ``config:NAME``. ``extra_fragments``
    are put before the fragments of ``text``. Raises UsageError for a part that does not
    exist (its hint lists those that do), that comes twice, or that does not fit the base.
    """
    if base_name not in bases:
        raise unknown("base", base_name, bases)
    base = bases[base_name]
    parts = _Parts(extra=list(dict.fromkeys(extra_fragments)))
    for place, part in enumerate(piece.strip() for piece in text.split("+")):
        parts.add(part, place, series, text)
    for name in parts.extra:
        _check_fragment(name, base, known_fragments)
    for revision in parts.revisions:
        _check_fits(revision, base, series[revision.series])
    names = [str(revision) for revision in parts.revisions] or [BASE]
    name = " + ".join([*names, *(CONFIG + extra for extra in parts.extra)])
    return Variant(name, base, tuple(parts.revisions), tuple(parts.extra))


def find_variant(lab: Lab, text: str) -> Variant:
    """The variant that a command names, on the base of the lab's default run.

    Any series@revision of the lab will do, also one that is in no run. Raises UsageError.
    """
    base = lab.runs[lab.default_run].arms[0].base
    return variant(lab.bases, lab.series, fragments(lab.kernels), text, base.name)


@dataclass(slots=True)
class _Parts:
    revisions: list[Revision] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    configs: set[str] = field(default_factory=set)  # those that the text itself names

    def add(self, part: str, place: int, series: Mapping[str, Series], text: str) -> None:
        if part == BASE:
            if place:
                raise UsageError(f"'base' comes first in '{text}'", hint=f"forms: {_FORM}")
        elif part.startswith(CONFIG):
            self._add_config(part.removeprefix(CONFIG), text)
        else:
            self._add_revision(_revision(part, series, text), text)

    def _add_config(self, name: str, text: str) -> None:
        if name in self.configs:
            raise UsageError(f"'{CONFIG}{name}' comes twice in '{text}'", hint="name it once")
        self.configs.add(name)
        if name not in self.extra:
            self.extra.append(name)

    def _add_revision(self, revision: Revision, text: str) -> None:
        for other in self.revisions:
            if other.series == revision.series:
                message = f"{other} and {revision} in '{text}' are of one series"
                raise UsageError(message, hint="a variant has one revision of a series")
        self.revisions.append(revision)


def _revision(part: str, series: Mapping[str, Series], text: str) -> Revision:
    series_name, at, revision_name = part.partition("@")
    every = [str(revision) for one in series.values() for revision in one.revisions]
    if not at and series_name in series:
        named = [str(revision) for revision in series[series_name].revisions]
        raise UsageError(
            f"'{part}' names a series and no revision", hint=f"there are: {', '.join(named)}"
        )
    if not at:
        error = unknown("variant", part or text, [BASE, *every])
        raise UsageError(str(error), hint=f"{error.hint}; forms: {_FORM}")
    if series_name not in series:
        raise unknown("series", series_name, series)
    for revision in series[series_name].revisions:
        if revision.name == revision_name:
            return revision
    known = [revision.name for revision in series[series_name].revisions]
    raise unknown("revision", revision_name, known, where=f" of {series_name}")


def _check_fragment(name: str, base: Base, known: Collection[str]) -> None:
    if name not in known:
        raise unknown("config fragment", name, known)
    if name in base.fragments:
        message = f"base '{base.name}' has the config fragment '{name}' already"
        raise UsageError(message, hint="leave it out")


def _check_fits(revision: Revision, base: Base, series: Series) -> None:
    if base.name in revision.bases:
        return
    fitting = [str(other) for other in series.revisions if base.name in other.bases]
    hint = f"it applies to: {', '.join(revision.bases)}"
    if fitting:
        hint += f"; for {base.name} there are: {', '.join(fitting)}"
    raise UsageError(f"{revision} does not apply to base '{base.name}'", hint=hint)
