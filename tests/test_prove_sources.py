# SPDX-License-Identifier: GPL-2.0-or-later
"""The listing that proves a user's tree unchanged sees every way of changing it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from patchlab.record import Outcome
from tests.proving import sources
from tests.sources import small_kernel


def write_and_set_the_time_back(tree: Path) -> None:
    file = tree / "fs/file.c"
    status = file.stat()
    file.write_text("int z;\n")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def refresh_the_index(tree: Path) -> None:
    os.utime(tree / "Kbuild")
    small_kernel.git(tree, "status")


def lock_the_index_for_a_moment(tree: Path) -> None:
    (tree / ".git/index.lock").touch()
    (tree / ".git/index.lock").unlink()


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (write_and_set_the_time_back, "fs/file.c"),
        (lambda tree: (tree / "Kbuild").chmod(0o755), "Kbuild"),
        (refresh_the_index, ".git/index"),
        (lock_the_index_for_a_moment, ".git"),
        (lambda tree: small_kernel.git(tree, "branch", "other"), ".git/refs/heads/other"),
    ],
)
def test_every_change_is_seen(tmp_path: Path, change: Callable[[Path], object], path: str) -> None:
    tree = small_kernel.repository(tmp_path / "linux")
    before = sources.listing(tree)
    assert sources.differences(before, sources.listing(tree)) == []
    change(tree)
    assert path in sources.differences(before, sources.listing(tree))


def test_the_page_and_the_verdict_say_what_was_seen() -> None:
    good = sources.OwnTree(
        key="k", image="i", source="git 1a2b3c4d5e6f (ref topic)", release="6.12.1-own", files=3,
        size=10**9, changed=(), outcome=Outcome.PASSED, reason="", steps=7, build_seconds=9.0,
        commit="c", when="2026-01-01",
    )  # fmt: skip
    assert good.held
    assert "| paths that are not as they were | none |" in sources.page(good)
    for bad in (
        {"changed": (".git/index",)},
        {"outcome": Outcome.CRASHED},
        {"release": "6.12.1"},
    ):
        fields = {name: getattr(good, name) for name in good.__struct_fields__} | bad
        assert not sources.OwnTree(**fields).held
    spoilt = sources.OwnTree(**{**fields, "changed": ("a|b`c",)})
    assert "`a¦b'c`" in sources.page(spoilt)
