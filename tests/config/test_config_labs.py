# SPDX-License-Identifier: GPL-2.0-or-later
"""The labs of the tests load, also where the files that they name are not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patchlab import config
from patchlab.building import kconfig
from patchlab.errors import UsageError
from patchlab.model import DebSource
from patchlab.paths import Cache
from patchlab.sources import source

LABS = Path(__file__).parents[1] / "labs"
SHIPPED = Path(__file__).parents[2] / "kernels" / "config"


def test_the_newer_base_wants_what_the_shipped_one_wants_but_for_what_it_declares() -> None:
    lab = config.load(LABS / "newer" / "lab.toml")
    newer, shipped = lab.bases["linux-7.3"], lab.bases["linux-6.12"]
    assert newer.fragments == (*shipped.fragments, "newer")
    for name in shipped.fragments:
        [file] = kconfig.fragment_files(lab.kernels, [name])
        assert file.samefile(SHIPPED / f"{name}.config")
    files = kconfig.fragment_files(lab.kernels, newer.fragments)
    merged = kconfig.declare(kconfig.merge(kconfig.read_fragment(file) for file in files), newer)
    declared = {one.wanted.option for one in merged.declared}
    assert declared == {*newer.options.renamed, *newer.options.absent}


def test_a_package_that_is_not_there_is_named_when_its_base_is_wanted(tmp_path: Path) -> None:
    lab = config.load(LABS / "newer" / "lab.toml")
    base = lab.bases["linux-7.3"]
    absent = DebSource(tmp_path / "linux.deb", "0" * 64)
    with pytest.raises(UsageError, match=r"linux-7\.3\.toml:15: file: .*linux\.deb: no such file"):
        source.find(replace(base, source=absent), Cache(tmp_path))


def test_every_base_can_say_what_its_source_is() -> None:
    lab = config.load(LABS / "newer" / "lab.toml")
    assert {name: source.words(base) for name, base in lab.bases.items()} == {
        "linux-6.12": "Debian linux-source-6.12",
        "linux-6.12-cloud": "Debian linux-source-6.12",
        "linux-7.3": "package linux-source-7.3_7.3.4-1~bpo13+1_all.deb",
    }
