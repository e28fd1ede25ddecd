# SPDX-License-Identifier: GPL-2.0-or-later
"""The slim config against the distribution's own, option by option."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchlab import config
from patchlab.building import build, kconfig
from patchlab.paths import default_cache
from patchlab.progress import Silent
from patchlab.sources import source

pytestmark = pytest.mark.vm

REPOSITORY = Path(__file__).parents[2]


def test_every_difference_from_debians_cloud_kernel_is_meant() -> None:
    lab, cache = config.load(REPOSITORY / "lab.toml"), default_cache()
    variant = config.find_variant(lab, "base")
    image = build.build(variant, lab, cache, Silent())
    reference = source.reference_config(variant.base, cache)
    assert reference is not None
    assert len(reference) > 1000
    differences = kconfig.read_differences(lab.kernels / "config" / "differences.toml")
    tree = source.fetch(variant.base, cache, Silent()).folder
    defined = kconfig.symbols(tree, differences.scope)
    assert len(defined) > 1000
    have = kconfig.parse(image.config.read_text())
    compared = kconfig.compare_reference(defined, have, reference, differences)
    assert compared.unexplained == ()
    assert compared.stale == ()
