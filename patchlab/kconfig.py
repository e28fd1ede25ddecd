# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel configuration: fragments in, a .config out, and every wanted option looked up again.

``make olddefconfig`` drops what it does not know and what lacks its dependencies, and says
nothing. So nothing is taken as set before it has been found in the resulting .config.

Options are named without ``CONFIG_``; one that is not set has the value ``n``, as has one
that the .config does not name at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from patchlab.config import toml
from patchlab.errors import BuildError, UsageError

NOT_SET = "n"
_LINE = re.compile(r"CONFIG_(?P<name>\w+)=(?P<value>.*)|# CONFIG_(?P<off>\w+) is not set", re.ASCII)
_DEFINITION = re.compile(r"^(?:menu)?config[ \t]+(\w+)[ \t]*$", re.MULTILINE | re.ASCII)
_DEPENDS = re.compile(r"^\s+depends on\s+((?:.*\\\n)*.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One line of a fragment."""

    option: str
    value: str
    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def text(self) -> str:
        return config_line(self.option, self.value)


@dataclass(frozen=True, slots=True)
class Merged:
    wanted: tuple[Wanted, ...]  # one an option, the last that was said
    conflicts: tuple[tuple[Wanted, Wanted], ...]  # (earlier, later), with unequal values


@dataclass(frozen=True, slots=True)
class Lost:
    """A wanted option that the .config does not have as it was wanted."""

    wanted: Wanted
    got: str


def config_line(option: str, value: str) -> str:
    return f"# CONFIG_{option} is not set" if value == NOT_SET else f"CONFIG_{option}={value}"


def parse(text: str) -> dict[str, str]:
    """The options of a .config, option -> value as it is written there."""
    matches = (_LINE.fullmatch(line) for line in text.splitlines())
    return {m["name"] or m["off"]: m["value"] or NOT_SET for m in matches if m}


def read_fragment(file: Path) -> tuple[Wanted, ...]:
    """The lines of ``kernels/config/<name>.config``.

    Raises UsageError, with file and line, for a line that is neither an option nor a comment.
    """
    wanted = []
    for number, line in enumerate(toml.text_lines(file), 1):
        if match := _LINE.fullmatch(line.rstrip()):
            name, value = match["name"] or match["off"], match["value"] or NOT_SET
            wanted.append(Wanted(name, value, file, number))
        elif line.strip() and not line.startswith("#"):
            raise UsageError(
                f"{toml.shown(file)}:{number}: not a line of a .config: {line.strip()!r}",
                hint="write CONFIG_NAME=value, or # CONFIG_NAME is not set",
            )
    return tuple(wanted)


def fragment_files(kernels: Path, names: Iterable[str]) -> tuple[Path, ...]:
    return tuple(kernels / "config" / f"{name}.config" for name in names)


def merge(fragments: Iterable[Iterable[Wanted]]) -> Merged:
    """One value an option: the last that was said. Unequal ones said before are conflicts."""
    last: dict[str, Wanted] = {}
    conflicts = []
    for wanted in (line for fragment in fragments for line in fragment):
        earlier = last.pop(wanted.option, None)
        if earlier and earlier.value != wanted.value:
            conflicts.append((earlier, wanted))
        last[wanted.option] = wanted
    return Merged(tuple(last.values()), tuple(conflicts))


def overlay(config: str, wanted: Sequence[Wanted]) -> str:
    """The text of ``config`` with the wanted options in place of its own."""
    names = {line.option for line in wanted}
    kept = [line for line in config.splitlines() if not (parse(line).keys() & names)]
    return "\n".join([*kept, *(line.text for line in wanted), ""])


def lost(wanted: Iterable[Wanted], have: Mapping[str, str]) -> tuple[Lost, ...]:
    """The wanted options that ``have`` gives another value, in the order they are wanted."""
    values = ((line, have.get(line.option, NOT_SET)) for line in wanted)
    return tuple(Lost(line, got) for line, got in values if got != line.value)


def configure(tree: Path, merged: Merged, make: Callable[[str], object]) -> str:
    """Write ``tree/.config``: tinyconfig and the wanted options over it; gives its text.

    ``make`` runs one target in ``tree``. Raises BuildError that names each wanted option
    that did not survive, where it is wanted, what it got, and what it depends on.
    """
    file = tree / ".config"
    make("tinyconfig")
    replace_file(file, overlay(read_inside(tree, ".config"), merged.wanted))
    make("olddefconfig")
    text = read_inside(tree, ".config")
    if gone := lost(merged.wanted, parse(text)):
        raise BuildError(
            "\n".join(
                [f"{len(gone)} wanted option(s) did not survive make olddefconfig:"]
                + [f"  {_explained(tree, option)}" for option in gone]
            ),
            hint="want what it depends on too, or take the line out of the fragment",
        )
    return text


def read_inside(tree: Path, name: str) -> str:
    """A text file of a tree that untrusted code has written to; never one from outside it."""
    path = (tree / name).resolve()
    if not path.is_relative_to(tree.resolve()) or not path.is_file():
        raise BuildError(f"the build left no file {name} in its tree")
    return path.read_text(encoding="utf-8", errors="replace")


def replace_file(path: Path, text: str) -> None:
    """Write a new file in place of whatever has that name: never through a link."""
    path.unlink(missing_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def _explained(tree: Path, option: Lost) -> str:
    wanted = option.wanted
    text = (
        f"{wanted}: CONFIG_{wanted.option}: wanted {wanted.value}, got {option.got}; "
        f"{_dependencies(tree, wanted.option)}"
    )
    return "".join(c if c.isprintable() else "?" for c in text)


def _dependencies(tree: Path, option: str) -> str:
    """What its first definition depends on, in Kconfig's words. Enclosing menus are not seen."""
    for file in sorted(tree.rglob("Kconfig*")):
        if file.is_symlink() or not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        for match in _DEFINITION.finditer(text):
            if match[1] == option:
                following = _DEFINITION.search(text, match.end())
                block = text[match.end() : following.start() if following else None]
                depends = [" ".join(found.split()) for found in _DEPENDS.findall(block)]
                where = f"{file.relative_to(tree)}"
                return f"depends on {' and '.join(depends) or 'nothing of its own'} ({where})"
    return "no Kconfig file of this source defines it"


# ------------------------------------------------- against the distribution's config


class Difference(msgspec.Struct, forbid_unknown_fields=True):
    """Options whose value differs from the reference on purpose."""

    reason: str
    options: tuple[str, ...]


class Scope(msgspec.Struct, forbid_unknown_fields=True):
    """Which options are compared."""

    files: tuple[str, ...]  # Kconfig files, as glob patterns below the tree
    probed: tuple[str, ...]  # options that tell of the tool chain, as patterns; not compared


class Differences(msgspec.Struct, forbid_unknown_fields=True):
    """kernels/config/differences.toml."""

    scope: Scope
    difference: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Unexplained:
    option: str
    file: str  # the Kconfig file that defines it
    have: str
    reference: str


@dataclass(frozen=True, slots=True)
class ReferenceComparison:
    unexplained: tuple[Unexplained, ...]  # they differ, and no reason is given
    stale: tuple[str, ...]  # a reason is given, and they do not differ


def read_differences(file: Path) -> Differences:
    """Raises UsageError, with file and line."""
    return toml.read(file, Differences).table


def symbols(tree: Path, scope: Scope) -> dict[str, str]:
    """The options that the scope's Kconfig files define: option -> file, relative to the tree."""
    found: dict[str, str] = {}
    for pattern in scope.files:
        for file in sorted(tree.glob(pattern)):
            for option in _DEFINITION.findall(file.read_text(encoding="utf-8")):
                if not any(fnmatchcase(option, probed) for probed in scope.probed):
                    found.setdefault(option, str(file.relative_to(tree)))
    return found


def compare_reference(
    defined: Mapping[str, str],
    have: Mapping[str, str],
    reference: Mapping[str, str],
    differences: Differences,
) -> ReferenceComparison:
    """Hold ``have`` against the distribution's config, option by option of ``defined``.

    A module there equals a built-in here: the code is the same, only linked otherwise.
    """
    named = {option for entry in differences.difference for option in entry.options}
    unlike = {}
    for option, file in defined.items():
        ours, theirs = have.get(option, NOT_SET), reference.get(option, NOT_SET)
        if ours != theirs and (ours, theirs) != ("y", "m"):
            unlike[option] = Unexplained(option, file, ours, theirs)
    return ReferenceComparison(
        tuple(entry for option, entry in unlike.items() if option not in named),
        tuple(sorted(named - unlike.keys())),
    )
