# SPDX-License-Identifier: GPL-2.0-or-later
"""The features that the agent knows, by the name of their file.

A new one is a file here and a line in this table. A feature is imported when it is asked for:
compiling all of them takes a guest under TCG several seconds of each boot.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

from guest.words import Feature

_NAMES = ("fuse_direct_mmap", "fuse_writable_mmap", "map_direct", "virtio_pmem")


class _Features(Mapping[str, Feature]):
    def __getitem__(self, name: str) -> Feature:
        if name not in _NAMES:
            raise KeyError(name)
        feature: Feature = importlib.import_module(f"{__name__}.{name}").FEATURE
        return feature

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


FEATURES: Mapping[str, Feature] = _Features()
