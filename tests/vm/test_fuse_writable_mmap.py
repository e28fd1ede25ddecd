# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared writable maps: the revisions without temporary pages.

test_boot.py asks 6.12, and 6.12 without them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from patchlab.model import Lab, Root
from patchlab.paths import Cache
from patchlab.record import Outcome
from tests.vm.boots import answers, quick, surprises

pytestmark = pytest.mark.vm


@pytest.mark.parametrize("name", ["fuse-writable-mmap@v2", "fuse-writable-mmap@v3"])
def test_a_revision_fails_the_checks_that_were_seen_red_on_it_and_no_others(
    name: str, lab: Lab, cache: Cache, guest_root: Root, tmp_path: Path
) -> None:
    checks = quick("fuse_writable_mmap")
    seen = answers(name, checks, lab, cache, guest_root, tmp_path)
    assert surprises(name, checks, seen) == {}
    assert Outcome.UNSUPPORTED not in {check.outcome for check in seen.values()}
