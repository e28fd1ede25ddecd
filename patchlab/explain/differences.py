# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between two arms before either is booted. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from patchlab.model import Image, options_of

_OPTION = re.compile(r"CONFIG_(\w+)=(.*)|# CONFIG_(\w+) is not set")
_ABSENT = "n"


@dataclass(frozen=True, slots=True)
class Patched:
    """One patch of one arm."""

    revision: str  # series@revision
    name: str  # of its file
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Something that is not the same in the two arms."""

    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Differences:
    patches: tuple[tuple[Patched, ...], tuple[Patched, ...]]  # of each arm, not in the other
    config: tuple[Pair, ...]
    options: int  # how many there are in the two configs
    other: tuple[Pair, ...]  # kernel options, source, toolchain, fragments
    sizes: tuple[Pair, ...]  # bytes; also those that are equal


def config(text: str) -> dict[str, str]:
    """Option -> value of a kernel's config file; what is not set is ``n``."""
    found = {}
    for line in text.splitlines():
        if match := _OPTION.fullmatch(line):
            found[match[1] or match[3]] = match[2] if match[1] else _ABSENT
    return found


def pairs(before: Mapping[str, str], after: Mapping[str, str], absent: str) -> tuple[Pair, ...]:
    names = sorted(before.keys() | after.keys())
    both = (Pair(name, before.get(name, absent), after.get(name, absent)) for name in names)
    return tuple(pair for pair in both if pair.before != pair.after)


def find(
    images: tuple[Image, Image],
    arms: tuple[str, str],
    configs: tuple[str, str],
    sizes: tuple[Mapping[str, int], Mapping[str, int]],
) -> Differences:
    """``configs`` are the texts of the images' config files, ``sizes`` bytes by what they are."""
    one, other = (config(text) for text in configs)
    mine, others = (_patches(image) for image in images)
    return Differences(
        (_without(mine, others), _without(others, mine)),
        pairs(one, other, _ABSENT),
        len(one.keys() | other.keys()),
        pairs(_facts(images[0], arms[0]), _facts(images[1], arms[1]), "none"),
        tuple(
            Pair(what, f"{sizes[0].get(what, 0):,}", f"{sizes[1].get(what, 0):,}")
            for what in sizes[0]
        ),
    )


def _patches(image: Image) -> dict[str, Patched]:
    return {
        one.sha256: Patched(f"{one.series}@{one.revision}", one.patch, one.files)
        for one in image.patches
    }


def _without(some: Mapping[str, Patched], others: Mapping[str, Patched]) -> tuple[Patched, ...]:
    return tuple(patch for digest, patch in some.items() if digest not in others)


def _facts(image: Image, arm: str) -> dict[str, str]:
    facts = {
        "source": f"{image.source_package} {image.source_version}",
        "release": image.release,
        "config fragments": _words(image.fragments),
        "kernel options": _words(options_of(arm)),
    }
    return facts | {f"toolchain: {tool}": line for tool, line in image.toolchain.items()}


def _words(words: Iterable[str]) -> str:
    return " ".join(words) or "none"
