# SPDX-License-Identifier: GPL-2.0-or-later
"""What two images and arms do not have in common."""

from __future__ import annotations

from dataclasses import replace

from patchlab.explain import differences
from patchlab.explain.differences import Pair, Patched
from tests.report.sample_run import BASE, CONTROL, sample_run

CONFIG = """# Automatically generated file; DO NOT EDIT.
CONFIG_FUSE_FS=y
# CONFIG_FUSE_IO_URING is not set
CONFIG_HZ=250
CONFIG_LSM="landlock,yama"
"""
SIZES = {"functions": 1000, "bzImage": 2000}


def test_options_that_are_not_set_are_n() -> None:
    assert differences.config(CONFIG) == {
        "FUSE_FS": "y",
        "FUSE_IO_URING": "n",
        "HZ": "250",
        "LSM": '"landlock,yama"',
    }


def test_arms_differ_in_patches_config_options_and_sizes() -> None:
    run = sample_run()
    images = (run.images[BASE], run.images[CONTROL])
    other = CONFIG.replace("HZ=250", "HZ=1000").replace("# CONFIG_FUSE_IO_URING is not set\n", "")
    arms = (BASE, f"{CONTROL} + cmdline:nopti")
    found = differences.find(images, arms, (CONFIG, other), (SIZES, SIZES | {"bzImage": 2100}))
    assert found.patches[0] == ()
    assert [type(patch) for patch in found.patches[1]] == [Patched]
    assert found.patches[1][0].revision == "fuse-writable-mmap@control"
    assert found.patches[1][0].files
    assert found.config == (Pair("HZ", "250", "1000"),)
    assert found.options == 4
    assert Pair("kernel options", "none", "nopti") in found.other
    assert found.sizes == (Pair("functions", "1,000", "1,000"), Pair("bzImage", "2,000", "2,100"))


def test_another_compiler_is_named() -> None:
    image = sample_run().images[BASE]
    newer = replace(image, toolchain=dict(image.toolchain) | {"gcc": "gcc 14"})
    found = differences.find((image, newer), (BASE, BASE), (CONFIG, CONFIG), (SIZES, SIZES))
    assert [(pair.what, pair.after) for pair in found.other] == [("toolchain: gcc", "gcc 14")]
    assert not found.config
    assert found.patches == ((), ())
