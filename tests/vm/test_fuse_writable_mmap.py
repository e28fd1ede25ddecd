# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared writable maps: the revisions without temporary pages.

test_boot.py asks 6.12, and 6.12 without them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from patchlab import config
from patchlab.building import build
from patchlab.model import Lab, Root
from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.record import Outcome
from patchlab.runs import features
from tests.vm.boots import boot, check_start, task

pytestmark = pytest.mark.vm

FEATURE = "fuse_writable_mmap"


@pytest.mark.parametrize("name", ["fuse-writable-mmap@v2", "fuse-writable-mmap@v3"])
def test_a_revision_fails_the_checks_that_were_seen_red_on_it_and_no_others(
    name: str, lab: Lab, cache: Cache, guest_root: Root, tmp_path: Path
) -> None:
    every = features.catalogue().of([FEATURE])
    # Those that do thousands of things run in `make prove`, and in the run of lab.toml.
    quick = tuple(check for check in every.checks if check.patience <= 2)
    image = build.build(config.find_variant(lab, name), lab, cache, Silent())
    begun = task(check_start(image), features.Catalogue(quick, ()))
    record = boot(begun, guest_root, lab, tmp_path)
    assert record.outcome is Outcome.PASSED, record.reason
    assert not record.findings
    seen = {check.id: (check.outcome, check.seen) for check in record.checks}
    assert set(seen) == {check.id for check in quick}
    failed = {i for i, (outcome, _) in seen.items() if outcome is not Outcome.PASSED}
    claimed = {check.id for check in quick if name in check.places}
    assert {i: seen[i] for i in failed ^ claimed} == {}
