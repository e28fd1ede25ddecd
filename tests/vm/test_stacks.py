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
from tests.vm.boots import FINE, answers, quick

pytestmark = pytest.mark.vm

PLANTED = Path(__file__).parents[1] / "planted" / "lab.toml"
STACK = "fuse-direct-mmap@v2 + fuse-writable-mmap@v3"


@pytest.mark.parametrize("feature", ["fuse_direct_mmap", "fuse_writable_mmap"])
def test_a_stack_passes_the_checks_of_both_features(
    feature: str, lab: Lab, cache: Cache, guest_root: Root, tmp_path: Path
) -> None:
    checks = quick(feature)
    seen = answers(STACK, checks, lab, cache, guest_root, tmp_path)
    known = {check.id for check in checks if "fuse-direct-mmap@v2" in check.places}
    wrong = {i: check.seen for i, check in seen.items() if check.outcome not in FINE}
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
