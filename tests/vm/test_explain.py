# SPDX-License-Identifier: GPL-2.0-or-later
"""Two real boots whose instructions are counted, function by function."""

from __future__ import annotations

import pytest

from patchlab.explain import counts, explain, trace
from patchlab.explain.counts import Profile
from patchlab.model import Image, Lab, Root, Sampling
from patchlab.runs import features
from tests.vm.boots import leftovers

pytestmark = pytest.mark.vm

METRIC = "B.fault"
SAMPLING = Sampling(blocks=1, seed=1, parallel=1, samples=3, warmup=2)


def traced(image: Image, root: Root, lab: Lab, catalogue: features.Catalogue) -> Profile:
    metric = next(one for one in catalogue.metrics if one.id == METRIC)
    order = trace.Order(image.variant, image, metric, SAMPLING, seed=7)
    return counts.profile(trace.trace(order, root, lab), explain.read(image), metric.statistic)


def test_the_counted_instructions_are_those_of_the_clock(
    base: Image, control: Image, guest_root: Root, lab: Lab, catalogue: features.Catalogue
) -> None:
    profiles = [traced(image, guest_root, lab, catalogue) for image in (base, control)]
    for profile in profiles:
        assert profile.total == pytest.approx(profile.clock, rel=0.005)
        # The window takes one fault a unit, and a fault reaches FUSE's page cache by this.
        assert profile.events["page faults"] == pytest.approx(1, abs=0.1)
        assert profile.places["filemap_map_pages"].calls == pytest.approx(1, abs=0.1)
    rows = counts.rows(*profiles)
    assert sum(row.difference for row in rows) == pytest.approx(
        profiles[1].total - profiles[0].total
    )
    assert not leftovers()


def test_only_functions_of_the_patched_file_have_changed(base: Image, control: Image) -> None:
    found = explain.changed((base, explain.read(base)), (control, explain.read(control)))
    names = {change.name: change.kind for change in found}
    # All are in fs/fuse/file.c: the compiler inlines the last one where it has one caller.
    assert names == {
        "fuse_file_mmap": "changed",
        "fuse_finish_open": "changed",
        "fuse_link_write_file.isra": "removed",
    }
