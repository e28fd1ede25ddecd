# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel configuration: fragments in, a .config out, and every wanted option looked up again.

``make olddefconfig`` drops what it does not know and what lacks its dependencies, and says
nothing. So nothing is taken as set before it has been found in the resulting .config.

Options are named without ``CONFIG_``; one that is not set has the value ``n``, as has one
that the .config does not name at all.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import msgspec

from patchlab.config import fragments, toml
from patchlab.config.lines import KeyPath, scan
from patchlab.errors import BuildError, UsageError
from patchlab.model import Base

NOT_SET = "n"
_PLAIN = (".c", ".h", ".S", ".rst", ".txt", ".yaml")
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
    declared: tuple[Declared, ...] = ()  # taken out of wanted: see declare()


@dataclass(frozen=True, slots=True)
class Declared:
    """A wanted line that a base's [options] says its kernel cannot have as it stands."""

    wanted: Wanted  # as the fragment has it
    new: str  # what the option is called there; "" when there is none
    where: str  # the declaration's file and line

    @property
    def text(self) -> str:
        what = f"renamed to CONFIG_{self.new}" if self.new else "absent"
        return f"{self.where}: CONFIG_{self.wanted.option} is declared {what}"


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
    """The files of config fragments: beside the bases, or in a folder of $PATCHLAB_CONFIG."""
    known = fragments.index(kernels)
    return tuple(known.get(name, kernels / "config" / f"{name}.config") for name in names)


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


def declare(merged: Merged, base: Base) -> Merged:
    """Put what the base's [options] says in place of the wanted lines that it names.

    Raises UsageError when a renamed option is wanted with another value under its new name.
    """
    renamed, absent = base.options.renamed, base.options.absent
    kept = {w.option: w for w in merged.wanted if w.option not in {*renamed, *absent}}
    declared = []
    for wanted in merged.wanted:
        if wanted.option in kept:
            continue
        new = renamed.get(wanted.option, "")
        one = Declared(wanted, new, _declaration(base.file, wanted.option))
        declared.append(one)
        if new:
            moved = replace(wanted, option=new)
            other = kept.setdefault(new, moved)
            if other.value != moved.value:
                message = f"{one.text}, which {other} wants to be {other.value}, not {moved.value}"
                raise UsageError(message, hint="take one of the two lines out of its fragment")
    return replace(merged, wanted=tuple(kept.values()), declared=tuple(declared))


def _declaration(file: Path, option: str) -> str:
    """Where [options] of a base's file names the option."""
    lines: Mapping[KeyPath, int] = {}
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = scan(file.read_text(encoding="utf-8"))
    paths = [
        ("options", table, name)
        for table in ("renamed", "absent")
        for name in (option, f"CONFIG_{option}")
    ]
    return f"{toml.shown(file)}:{next((lines[p] for p in paths if p in lines), 1)}"


def overlay(config: str, wanted: Sequence[Wanted]) -> str:
    """The text of ``config`` with the wanted options in place of its own."""
    names = {line.option for line in wanted}
    kept = [line for line in config.splitlines() if not (parse(line).keys() & names)]
    return "\n".join([*kept, *(line.text for line in wanted), ""])


def lost(wanted: Iterable[Wanted], have: Mapping[str, str]) -> tuple[Lost, ...]:
    """The wanted options that ``have`` gives another value, in the order they are wanted."""
    values = ((line, have.get(line.option, NOT_SET)) for line in wanted)
    return tuple(Lost(line, got) for line, got in values if got != line.value)


def without_modules(text: str) -> str:
    """A .config that builds nothing as a module: what was one is left out."""
    return "\n".join(
        config_line(line[len("CONFIG_") : -len("=m")], NOT_SET) if line.endswith("=m") else line
        for line in text.splitlines()
    )


def configure(
    tree: Path, merged: Merged, make: Callable[[str], object], start: str | None = None
) -> str:
    """Write ``tree/.config``: ``start``, or tinyconfig, with the wanted options over it.

    ``make`` runs one target in ``tree``. Gives the text. Raises what verify() raises.
    """
    file = tree / ".config"
    if start is None:
        make("tinyconfig")
    else:
        replace_file(file, start)
    lines = (*merged.wanted, *(one.wanted for one in merged.declared))
    replace_file(file, overlay(read_inside(tree, ".config"), lines))
    make("olddefconfig")
    return verify(tree, merged)


def verify(tree: Path, merged: Merged) -> str:
    """The text of ``tree/.config``, which has every option as it is wanted.

    Raises BuildError that names each wanted option that did not survive, where it is wanted,
    what it got, and what it depends on; and each declared one that does survive, for then its
    declaration is out of date.
    """
    text = read_inside(tree, ".config")
    have = parse(text)
    if gone := lost(merged.wanted, have):
        raise BuildError(
            "\n".join(
                [f"{len(gone)} wanted option(s) did not survive make olddefconfig:"]
                + [f"  {_explained(tree, option)}" for option in gone]
            ),
            hint="want what it depends on too, or take the line out of the fragment; one that this "
            "kernel calls otherwise or no longer has is declared in [options] of the base",
        )
    if rotten := stale(merged.declared, have, lambda option: _definition(tree, option) is not None):
        raise BuildError(
            "\n".join(["declared option(s) that need no declaration:", *rotten]),
            hint="take the line out of [options] of the base, or correct it",
        )
    return text


def may_change(files: Iterable[str]) -> bool:
    """Whether patches that write these files could give the tree another .config.

    Kconfig reads Kconfig files, runs what lies in scripts/, and is started by the Makefiles at
    the top and of the architecture (Documentation/kbuild/kconfig-language.rst). What is not
    known to have no part in that may have one.
    """
    return not all(_is_plain(PurePosixPath(file)) for file in files)


def _is_plain(file: PurePosixPath) -> bool:
    if file.parts[0] == "scripts":
        return False
    if file.name in ("Makefile", "Kbuild"):
        return len(file.parts) > 1 and file.parts[0] not in ("arch", "tools")
    return file.suffix in _PLAIN


def stale(
    declared: Iterable[Declared], have: Mapping[str, str], defined: Callable[[str], bool]
) -> list[str]:
    """What is wrong with the declarations, one line each, once the .config is known."""
    found = []
    for one in declared:
        got = have.get(one.wanted.option, NOT_SET)
        if one.new and one.wanted.option in have:
            found.append(f"  {one.text}, and this kernel has it (it is {got})")
        elif one.new and one.wanted.value == NOT_SET and not defined(one.new):
            found.append(f"  {one.text}, which no Kconfig file of this source defines")
        elif not one.new and got == one.wanted.value:
            found.append(f"  {one.text}, and it is {got}, as {one.wanted} wants it")
    return found


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
    found = _definition(tree, option)
    if found is None:
        return "no Kconfig file of this source defines it"
    file, block = found
    depends = [" ".join(words.split()) for words in _DEPENDS.findall(block)]
    return f"depends on {' and '.join(depends) or 'nothing of its own'} ({file.relative_to(tree)})"


def _definition(tree: Path, option: str) -> tuple[Path, str] | None:
    """Where the option is first defined: the file, and the lines that define it."""
    for file in sorted(tree.rglob("Kconfig*")):
        if file.is_symlink() or not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        for match in _DEFINITION.finditer(text):
            if match[1] == option:
                following = _DEFINITION.search(text, match.end())
                return file, text[match.end() : following.start() if following else None]
    return None


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
