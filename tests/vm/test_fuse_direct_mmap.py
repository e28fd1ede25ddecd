# SPDX-License-Identifier: GPL-2.0-or-later
"""The three revisions of FUSE direct mmap, and the kernel without it, as their agent sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchlab.model import Lab, Root
from patchlab.paths import Cache
from patchlab.record import Outcome
from tests.vm.boots import answers, quick, surprises

pytestmark = pytest.mark.vm


@pytest.mark.parametrize("name", ["base", *(f"fuse-direct-mmap@v{n}" for n in (1, 2, 3))])
def test_a_revision_fails_the_checks_that_were_seen_red_on_it_and_no_others(
    name: str, lab: Lab, cache: Cache, guest_root: Root, tmp_path: Path
) -> None:
    checks = quick("fuse_direct_mmap", patience=1)
    seen = answers(name, checks, lab, cache, guest_root, tmp_path)
    # What base is named for is unsupported there.
    assert surprises("" if name == "base" else name, checks, seen) == {}
    assert (seen["A1"].outcome is Outcome.UNSUPPORTED) == (name == "base")
