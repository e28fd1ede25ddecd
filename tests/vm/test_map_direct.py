# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel without MAP_DIRECT, as its agent sees it.

The revisions change headers that every file includes: a build of one takes as long as that of a
whole kernel. `make prove` asks them, and the run of lab.toml.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from patchlab.model import Lab, Root
from patchlab.paths import Cache
from patchlab.record import Outcome
from tests.vm.boots import answers, quick

pytestmark = pytest.mark.vm


def test_a_kernel_without_it_lacks_it_and_fails_nothing(
    lab: Lab, cache: Cache, guest_root: Root, tmp_path: Path
) -> None:
    seen = answers("base", quick("map_direct"), lab, cache, guest_root, tmp_path)
    assert seen["D1"].outcome is Outcome.UNSUPPORTED
    found = {check.outcome for check in seen.values()}
    assert found <= {Outcome.PASSED, Outcome.UNSUPPORTED}, seen
