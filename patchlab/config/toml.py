# SPDX-License-Identifier: GPL-2.0-or-later
"""Read a TOML file into a struct of schema.py; every error says file, line, key and remedy."""

from __future__ import annotations

import contextlib
import re
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from patchlab.config.lines import KeyPath, scan
from patchlab.config.names import did_you_mean
from patchlab.errors import UsageError

S = TypeVar("S", bound=msgspec.Struct)

_PLAIN = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Document(Generic[S]):
    """A file that fits its schema, with the line of every key for errors found later."""

    file: Path
    table: S
    lines: Mapping[KeyPath, int]

    def error(self, path: KeyPath, message: str, *, hint: str = "") -> UsageError:
        """An error at ``path``, or at the nearest table around it that the file has."""
        return _error(self.file, self.lines, path, message, hint)

    @contextlib.contextmanager
    def at(self, path: KeyPath) -> Iterator[None]:
        """Puts this file and the line of ``path`` before any UsageError raised inside."""
        try:
            yield
        except UsageError as error:
            raise self.error(path, str(error), hint=error.hint) from None


def read(file: Path, schema: type[S]) -> Document[S]:
    """Read and check ``file``.

    Raises UsageError for a file that cannot be read, is not UTF-8 or not TOML, and for the
    first key that is unknown, missing, of a wrong type or out of range.
    """
    text = _text(file)
    data = _parsed(file, text)
    checker = _Checker(file, scan(text))
    checker.check(data, schema, ())
    return Document(file, msgspec.convert(data, schema), checker.lines)


def shown(file: Path) -> str:
    """The path as the user would type it: relative where it is below the current folder."""
    with contextlib.suppress(ValueError):
        return str(file.absolute().relative_to(Path.cwd()))
    return str(file)


def user_path(text: str) -> Path:
    """A path as a user types it: ``~`` is a home; one that nobody has stays as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def text_lines(file: Path) -> list[str]:
    """The lines of a small text file. Raises UsageError when it cannot be read or is not UTF-8."""
    return _text(file).splitlines()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = "docs/lab-toml.md says which files a lab has"
        raise UsageError(f"{shown(file)}: no such file", hint=hint) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{shown(file)}:{line}: not UTF-8", hint="save it as UTF-8") from None
    except IsADirectoryError as error:
        hint = "a file is wanted, as in --lab path/to/lab.toml"
        raise UsageError(f"{shown(file)}: {error.strerror}", hint=hint) from None
    except OSError as error:
        raise UsageError(f"{shown(file)}: {error.strerror}") from None


def _parsed(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        match = _LINE.search(message)
        line = int(match[1]) if match and match[1] else len(text.splitlines())
        what = _LINE.sub("", message)
        where = f"{shown(file)}:{max(line, 1)}"
        raise UsageError(f"{where}: not TOML: {what}", hint="toml.io has the grammar") from None


def _error(
    file: Path, lines: Mapping[KeyPath, int], path: KeyPath, message: str, hint: str = ""
) -> UsageError:
    while path and path not in lines:
        path = path[:-1]
    return UsageError(f"{shown(file)}:{lines.get(path, 1)}: {message}", hint=hint)


@dataclass(frozen=True, slots=True)
class _Checker:
    """Walks data and types side by side, because msgspec knows neither lines nor dict keys."""

    file: Path
    lines: Mapping[KeyPath, int]

    def check(self, value: object, kind: Any, path: KeyPath) -> None:
        if choices := _choices(kind):
            self.check(value, self._chosen(value, choices, path), path)
            return
        plain = _plain(kind)
        if _is_struct(plain):
            self._table(value, plain, path)
            return
        if get_origin(plain) is dict and isinstance(value, dict):
            for key, item in value.items():
                self.check(item, get_args(plain)[1], (*path, key))
        elif get_origin(plain) is tuple and isinstance(value, list):
            for index, item in enumerate(value):
                self.check(item, get_args(plain)[0], (*path, index))
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            raise self._mismatch(value, kind, path) from None

    def _chosen(
        self, value: object, choices: Mapping[str, type[msgspec.Struct]], path: KeyPath
    ) -> type[msgspec.Struct]:
        """Which of several tables this is: each says so by the same key."""
        if not isinstance(value, dict):
            raise self._mismatch(value, next(iter(choices.values())), path)
        key = _tag(next(iter(choices.values())))[0]
        said = value.get(key)
        names = ", ".join(repr(name) for name in choices)
        if key not in value:
            message = f"'{key}' is missing {_inside(path)}"
            hint = f"add {key} = …, one of {names}"
            raise _error(self.file, self.lines, path, message, hint)
        if not isinstance(said, str) or said not in choices:
            at = (*path, key)
            message = f"{label(at)}: expected one of {names}, got {_got(said)}"
            raise _error(self.file, self.lines, at, message, did_you_mean(str(said), choices))
        return choices[said]

    def _table(self, value: object, struct: type[msgspec.Struct], path: KeyPath) -> None:
        if not isinstance(value, dict):
            raise self._mismatch(value, struct, path)
        fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        tag = _tag(struct)[0]
        for key, item in value.items():
            if key == tag:
                continue
            if key not in fields:
                raise self._unknown(key, [*fields, *([tag] if tag else [])], path)
            self.check(item, fields[key].type, (*path, key))
        for key, field in fields.items():
            if field.required and key not in value:
                message = f"'{key}' is missing {_inside(path)}"
                hint = f"add {key} = …, {_expected(field.type)}"
                raise _error(self.file, self.lines, path, message, hint)

    def _unknown(self, key: str, known: list[str], path: KeyPath) -> UsageError:
        hint = did_you_mean(key, known) or f"known keys: {', '.join(known)}"
        message = f"unknown key '{key}' {_inside(path)}"
        return _error(self.file, self.lines, (*path, key), message, hint)

    def _mismatch(self, value: object, kind: Any, path: KeyPath) -> UsageError:
        message = f"{label(path)}: expected {_expected(kind)}, got {_got(value)}"
        return _error(self.file, self.lines, path, message)


def label(path: KeyPath) -> str:
    """``cpus in [machine]``, ``packages[2] in [machine.root]``."""
    keys = [place for place, part in enumerate(path) if isinstance(part, str)]
    if not keys:
        return "the file"
    last = keys[-1]
    indices = "".join(f"[{index}]" for index in path[last + 1 :])
    return f"{path[last]}{indices} {_inside(path[:last])}"


def _inside(path: KeyPath) -> str:
    if not path:
        return "at the top"
    name = ".".join(_quoted(part) for part in path if isinstance(part, str))
    return f"in [[{name}]]" if isinstance(path[-1], int) else f"in [{name}]"


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"'


def _plain(kind: Any) -> Any:
    """The type without Annotated and without None, which TOML does not have."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return next(arg for arg in get_args(kind) if arg is not types.NoneType)
    return kind


def _choices(kind: Any) -> dict[str, type[msgspec.Struct]]:
    """The tables that a union has, by their tag; none for any other type."""
    if get_origin(kind) not in (Union, types.UnionType):
        return {}
    return {name: arg for arg in get_args(kind) if (name := _tag(arg)[1])}


def _tag(kind: Any) -> tuple[str, str]:
    """The key by which a table says that it is this one, and what it says there."""
    config = getattr(kind, "__struct_config__", None)
    if config is None or not config.tag:
        return "", ""
    return str(config.tag_field), str(config.tag)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _expected(kind: Any) -> str:
    """What a value of this type looks like, in words."""
    for note in get_args(kind)[1:] if get_origin(kind) is Annotated else ():
        if isinstance(note, msgspec.Meta) and note.description:
            return note.description
    plain = _plain(kind)
    if get_origin(plain) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(plain))
    if get_origin(plain) is tuple:
        element = _plain(get_args(plain)[0])
        return "an array of tables" if _is_struct(element) else "an array of strings"
    return _PLAIN.get(plain, "a table")


def _got(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an empty array" if not value else "an array"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
