# SPDX-License-Identifier: GPL-2.0-or-later
"""Two series in one kernel: each feature's checks find there what they find without the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchlab import config
from patchlab.building import build
from patchlab.errors import PatchError
from patchlab.model import Lab, Root
from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.record import Outcome
from patchlab.runs import features
from tests.vm.boots import boot, check_start, task

pytestmark = pytest.mark.vm

PLANTED = Path(__file__).parents[1] / "planted" / "lab.toml"
STACK = "fuse-direct-mmap@v2 + fuse-writable-mmap@v3"
FINE = {Outcome.PASSED, Outcome.UNSUPPORTED}


@pytest.mark.parametrize("feature", ["fuse_direct_mmap", "fuse_writable_mmap"])
def test_a_stack_passes_the_checks_of_both_features(
    feature: str, lab: Lab, cache: Cache, guest_root: Root, tmp_path: Path
) -> None:
    every = features.catalogue().of([feature])
    # Those that do thousands of things run in `make prove`, and in the run of lab.toml.
    quick = tuple(check for check in every.checks if check.patience <= 2)
    image = build.build(config.find_variant(lab, STACK), lab, cache, Silent())
    begun = task(check_start(image), features.Catalogue(quick, ()))
    record = boot(begun, guest_root, lab, tmp_path)
    assert record.outcome is Outcome.PASSED, record.reason
    assert not record.findings
    known = {check.id for check in quick if "fuse-direct-mmap@v2" in check.red}
    wrong = {one.id: one.seen for one in record.checks if one.outcome not in FINE}
    assert set(wrong) <= known, wrong


def test_a_stack_that_does_not_apply_names_both_patches(cache: Cache) -> None:
    planted = config.load(PLANTED)
    stack = config.find_variant(planted, "fuse-writable-mmap@v3 + planted-fuse-writable-mmap@v2")
    with pytest.raises(PatchError) as caught:
        build.try_patches(stack, planted, cache, Silent())
    text = str(caught.value)
    assert "planted-fuse-writable-mmap@v2: " in text
    assert "0002-fuse-plant-eager-store-a-second-store-that-does-not-.patch does not apply" in text
    assert "fs/fuse/file.c: hunk 1, line 2589 (already changed by fuse-writable-mmap@v3: " in text
    assert "0005-fuse-write-back-from-the-page-cache-without-temporar.patch" in text
