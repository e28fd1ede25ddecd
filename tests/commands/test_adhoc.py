# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from patchlab import config
from patchlab.commands import load
from patchlab.commands.adhoc import adhoc, where_from
from patchlab.model import Lab
from tests.config import small_lab

SHIPPED = Path(__file__).parents[2] / "lab.toml"


@pytest.fixture(scope="module")
def shipped() -> Lab:
    return config.load(SHIPPED)


@pytest.mark.parametrize(
    ("names", "features", "disk"),
    [
        (["map-direct@v9"], (), 512 << 20),
        (["base"], ("map_direct",), 512 << 20),
        (["base", "fuse-direct-mmap@v3"], (), 0),
        # The run map-direct has virtio_pmem too, but its disk is not for that.
        (["base"], (), 0),
        (["base"], ("virtio_pmem",), 0),
        (["base"], ("virtio_pmem", "map_direct"), 512 << 20),
    ],
)
def test_the_disk_of_a_feature_is_there_in_every_run_of_it(
    shipped: Lab, names: list[str], features: tuple[str, ...], disk: int
) -> None:
    assert adhoc(shipped, names, "bench", features).disk == disk


def test_the_largest_disk_counts_also_of_a_run_without_a_series(tmp_path: Path) -> None:
    file = small_lab.make(tmp_path)
    run = '[run.{}]\ntitle = "T"\nbase = "linux-6.12"\narms = ["base"]\nfeatures = ["{}"]\n{}\n'
    more = [
        ("a", "mounting", 'disk = "300M"'),
        ("b", "mounting", 'disk = "1G"'),
        ("c", "mounting", ""),
    ]
    small_lab.write(file, small_lab.LAB + "".join(run.format(*one) for one in more))
    lab = small_lab.load(file)
    plan = adhoc(lab, ["base"], "check", ())
    assert (plan.features, plan.disk) == (("mapping",), 0)
    assert lab.runs["b"].disk == 1 << 30
    small_lab.edit(file, '["mapping"]', '["mapping", "mounting"]')
    assert adhoc(small_lab.load(file), ["base"], "check", ()).disk == 1 << 30


def test_features_that_nobody_named_are_said(
    shipped: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    patch = tmp_path / "my.patch"
    small_lab.write(patch, small_lab.PATCH.format(tag="1/1", subject="a: one"))

    def said(name: str, *features: str) -> str:
        return where_from(shipped, adhoc(shipped, [name], "check", features), features)

    for name in ("base", f"base + {patch}"):
        assert said(name) == (
            "features of the default run 'fuse-writable-mmap': fuse_writable_mmap, virtio_pmem; "
            "--feature NAME takes another"
        )
        assert said(name, "map_direct") == ""
    assert said("map-direct@v9") == ""
    assert said(f"map-direct@v9 + {patch}") == ""


@pytest.mark.parametrize("verb", ["check", "bench"])
def test_help_says_which_features_are_taken(verb: str) -> None:
    parser = argparse.ArgumentParser()
    load(verb).arguments(parser)
    said = " ".join(parser.format_help().split())
    assert "patches of your own, those of lab.toml's default run" in said
