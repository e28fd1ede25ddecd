# SPDX-License-Identifier: GPL-2.0-or-later
"""The name of a variant -> model.Variant. Only a part that is a path is read."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from patchlab.config import fragments, own
from patchlab.config.names import unknown
from patchlab.errors import UsageError
from patchlab.model import CMDLINE, CPU, Base, ImageSource, Lab, Revision, Series, Variant
from patchlab.paths import Cache, default_cache

BASE = "base"
CONFIG = "config:"
_FORM = (
    "base, series@revision, a@v1 + b@v2, base + config:debug, base + ./my.patch, "
    "base + cmdline:NAME=VALUE, base + cpu:NAME"
)
# No quote and no blank: the option is one word of the kernel's command line.
_OPTION = re.compile(r"[A-Za-z0-9_.-]+(=[A-Za-z0-9_.,:/@%*!-]*)?", re.ASCII)
# What the lab sets itself, so that a guest comes up and two boots can be compared.
_OWN = re.compile(r"(init|root\w*|console|earlyprintk|panic|virtme\S*|lab\.pad)(=.*)?", re.ASCII)


class WrongBase(UsageError):
    """A revision does not apply to the base; it does to ``bases``."""

    def __init__(self, message: str, *, hint: str, bases: tuple[str, ...]) -> None:
        super().__init__(message, hint=hint)
        self.bases = bases


@dataclass(frozen=True, slots=True)
class Place:
    """Where the paths in a variant's name start, and where the patches found there are kept."""

    folder: Path
    cache: Cache


def variant(
    bases: Mapping[str, Base],
    series: Mapping[str, Series],
    known_fragments: Collection[str],
    text: str,
    base_name: str,
    extra_fragments: Sequence[str] = (),
    place: Place | None = None,
    models: Collection[str] = (),
) -> Variant:
    """What ``text`` means on the base ``base_name``; the result's name is canonical.

    ``text`` is parts joined by ``+``: ``base`` (first, may be left out before others),
    ``series@revision`` and paths of a user's own patches in the order they are applied,
    ``config:NAME``, ``cmdline:OPTION``, ``cpu:NAME`` with one of ``models``. ``extra_fragments``
    are put before the fragments of ``text``; paths start at ``place``. Raises UsageError for a
    part that does not exist (its hint lists those that do), that comes twice, or that does not
    fit the base.
    """
    place = place or Place(Path.cwd(), default_cache())
    if base_name not in bases:
        raise unknown("base", base_name, bases)
    base = bases[base_name]
    parts = _Parts(extra=list(dict.fromkeys(extra_fragments)))
    for number, part in enumerate(own.parts(text, place.folder)):
        if part.startswith(CPU):
            parts.set_cpu(part.removeprefix(CPU), models, text)
        elif part.startswith(CMDLINE):
            parts.add_option(part.removeprefix(CMDLINE), text)
        elif part in bases and part not in (BASE, *series):
            raise _base_as_part(part, text)
        elif part.partition("@")[0] in series or not _add_own(parts, part, base_name, place, text):
            parts.add(part, number, series, text)
    _check_image(parts, base)
    for name in parts.extra:
        _check_fragment(name, base, known_fragments)
    for revision in parts.revisions:
        if revision.origin is None:
            _check_fits(revision, base, series[revision.series])
    return Variant(
        parts.name,
        base,
        tuple(parts.revisions),
        tuple(parts.extra),
        tuple(parts.options),
        parts.cpu,
    )


def _add_own(parts: _Parts, part: str, base: str, place: Place, text: str) -> bool:
    """Whether the part is a user's own patches: kept before, or a path."""
    if kept := own.kept(part, base, place.cache):
        parts.add_revision(kept, text)
    elif own.is_path(part):
        parts.add_revision(own.revision(part, base, place.folder, place.cache), text)
    else:
        return False
    return True


def find_variant(lab: Lab, text: str, place: Place | None = None) -> Variant:
    """The variant that a command names, on the lab's base for these (on_base() takes another).

    Any series@revision of the lab will do, also one that is in no run. Paths start at the
    current folder without ``place``. Raises UsageError.
    """
    known = fragments.index(lab.kernels)
    models = dict(lab.machine.models)
    try:
        return variant(lab.bases, lab.series, known, text, lab.base, place=place, models=models)
    except WrongBase as error:
        hint = f"{error.hint}; or give --base {error.bases[0]}"
        raise WrongBase(str(error), hint=hint, bases=error.bases) from None


def on_base(lab: Lab, name: str) -> Lab:
    """The lab, with the base ``name`` for the variants that a command names. Raises UsageError."""
    if name not in lab.bases:
        raise unknown("base", name, lab.bases)
    return replace(lab, base=name)


def stored_name(lab: Lab, text: str, stored: Collection[str]) -> str:
    """An arm's name in the results, from what was typed for a run or what reports show.

    A user's own patches are ``my@1a2b3c4d`` in reports, which is no series@revision.
    """
    shown = " + ".join(part.strip() for part in text.split("+"))
    if shown in stored:
        return shown
    try:
        return find_variant(lab, text).name
    except WrongBase as error:  # a run on another base; the name is the same on each
        return find_variant(on_base(lab, error.bases[0]), text).name


@dataclass(slots=True)
class _Parts:
    revisions: list[Revision] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    configs: set[str] = field(default_factory=set)  # those that the text itself names
    options: list[str] = field(default_factory=list)
    cpu: str = ""

    @property
    def name(self) -> str:
        """Of the variant, canonical."""
        names = [str(revision) for revision in self.revisions] or [BASE]
        names += [CONFIG + extra for extra in self.extra]
        names += [CMDLINE + option for option in self.options]
        return " + ".join([*names, *([CPU + self.cpu] if self.cpu else [])])

    def add(self, part: str, place: int, series: Mapping[str, Series], text: str) -> None:
        if part == BASE:
            if place:
                raise UsageError(f"'base' comes first in '{text}'", hint=f"forms: {_FORM}")
        elif part.startswith(CONFIG):
            self._add_config(part.removeprefix(CONFIG), text)
        else:
            self.add_revision(_revision(part, series, text), text)

    def _add_config(self, name: str, text: str) -> None:
        if name in self.configs:
            raise UsageError(f"'{CONFIG}{name}' comes twice in '{text}'", hint="name it once")
        self.configs.add(name)
        if name not in self.extra:
            self.extra.append(name)

    def add_option(self, option: str, text: str) -> None:
        if not _OPTION.fullmatch(option):
            message = f"'{CMDLINE}{option}' in '{text}' is no kernel option"
            raise UsageError(message, hint=f"one word: {CMDLINE}NAME or {CMDLINE}NAME=VALUE")
        if _OWN.fullmatch(option):
            message = f"'{CMDLINE}{option}' in '{text}': the lab sets that option itself"
            raise UsageError(message, hint="leave it out")
        if option in self.options:
            raise UsageError(f"'{CMDLINE}{option}' comes twice in '{text}'", hint="name it once")
        self.options.append(option)

    def set_cpu(self, name: str, models: Collection[str], text: str) -> None:
        if self.cpu:
            raise UsageError(f"'{CPU}' comes twice in '{text}'", hint="name one CPU model")
        if name not in models:
            raise unknown("CPU model", name, models, where=" in [machine.models]")
        self.cpu = name

    def add_revision(self, revision: Revision, text: str) -> None:
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
        # What a shell makes of a name without quotes.
        quote = 'quote the whole name: "base + config:debug"; ' if text.strip() == "+" else ""
        raise UsageError(str(error), hint=f"{quote}{error.hint}; forms: {_FORM}")
    if series_name not in series:
        raise unknown("series", series_name, series)
    for revision in series[series_name].revisions:
        if revision.name == revision_name:
            return revision
    known = [revision.name for revision in series[series_name].revisions]
    raise unknown("revision", revision_name, known, where=f" of {series_name}")


def _base_as_part(name: str, text: str) -> UsageError:
    """A base is no part of a variant: all arms of a run are on one."""
    hint = f'write {BASE} for it, and --base {name} beside; in a [run] of lab.toml, base = "{name}"'
    return UsageError(f"'{name}' in '{text}' is the name of a base", hint=hint)


def _check_image(parts: _Parts, base: Base) -> None:
    if isinstance(base.source, ImageSource) and (parts.revisions or parts.extra):
        asked = ", ".join([*map(str, parts.revisions), *(CONFIG + name for name in parts.extra)])
        message = f"base '{base.name}' is an image that is built already: {asked} cannot go into it"
        raise UsageError(message, hint="name a base with a source: git, directory, tarball, debian")


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
    message = f"{revision} does not apply to base '{base.name}'"
    raise WrongBase(message, hint=hint, bases=revision.bases)
