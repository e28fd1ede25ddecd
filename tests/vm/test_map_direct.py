# SPDX-License-Identifier: GPL-2.0-or-later
"""The three revisions of MAP_DIRECT, and the kernel without it, as their agent sees them."""

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

FEATURE = "map_direct"
FINE = {Outcome.PASSED, Outcome.UNSUPPORTED}
REVISIONS = tuple(f"map-direct@{name}" for name in ("v6-asposted", "v6", "v9"))


@pytest.mark.parametrize("name", ["base", *REVISIONS])
def test_a_revision_fails_the_checks_that_were_seen_red_on_it_and_no_others(
    name: str, lab: Lab, cache: Cache, guest_root: Root, tmp_path: Path
) -> None:
    every = features.catalogue().of([FEATURE])
    # The power cuts run in `make prove`, and in the run of lab.toml.
    quick = tuple(check for check in every.checks if check.patience <= 2)
    catalogue = features.Catalogue(quick, ())
    image = build.build(config.find_variant(lab, name), lab, cache, Silent())
    record = boot(task(check_start(image), catalogue), guest_root, lab, tmp_path)
    assert record.outcome is Outcome.PASSED, record.reason
    assert not record.findings
    seen = {check.id: (check.outcome, check.seen) for check in record.checks}
    assert set(seen) == {check.id for check in catalogue.checks}
    failed = {i for i, (outcome, _) in seen.items() if outcome not in FINE}
    claimed = {check.id for check in catalogue.checks if name in _places(check.red)}
    expected = set() if name == "base" else claimed
    assert {i: seen[i] for i in failed ^ expected} == {}
    assert (seen["D1"][0] is Outcome.UNSUPPORTED) == (name == "base")


def _places(red: str) -> set[str]:
    return {place.strip() for place in red.split(";")}
