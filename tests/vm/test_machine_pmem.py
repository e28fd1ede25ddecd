# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with two pmem devices of different filesystems."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from patchlab import config
from patchlab.guests import live
from patchlab.model import Image, Lab
from patchlab.paths import Cache
from patchlab.progress import Silent

pytestmark = pytest.mark.vm

LAB = Path(__file__).parents[1] / "labs" / "two-pmem" / "lab.toml"


def test_both_devices_are_there_and_mounted_as_declared(
    lab: Lab, cache: Cache, base: Image
) -> None:
    two = config.load(LAB)
    # The guest's root is the one that all tests here share.
    shared = dataclasses.replace(two.machine, root_packages=lab.machine.root_packages)
    two = dataclasses.replace(two, machine=shared)
    variant = config.find_variant(two, "base")
    with live.guest(variant, two, cache, Silent(), features=("virtio_pmem",)) as running:
        _, out, _ = running.guest.client.exec_command(
            "cat /proc/mounts; cat /sys/block/pmem[01]/size /sys/block/pmem[01]/queue/dax",
            timeout=60,
        )
        said = out.read().decode().splitlines()
    assert base.release
    mounts = {line.split()[1]: line.split() for line in said if line.startswith("/dev/pmem")}
    first, second = mounts["/mnt/pmem0"], mounts["/mnt/pmem1"]
    assert (first[0], first[2]) == ("/dev/pmem0", "xfs")
    assert (second[0], second[2]) == ("/dev/pmem1", "ext4")
    assert "dax=always" in first[3].split(",")
    assert {"dax=always", "commit=30"} <= set(second[3].split(","))
    assert said[-4:] == [str((512 << 20) // 512), str((256 << 20) // 512), "1", "1"]
