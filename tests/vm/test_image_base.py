# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that was built elsewhere is booted as it is."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from patchlab.building import build
from patchlab.guests import live
from patchlab.model import Base, Image, ImageSource, Lab, Variant
from patchlab.paths import Cache
from patchlab.progress import Silent

pytestmark = pytest.mark.vm


def test_it_comes_up_and_nothing_is_built(
    lab: Lab, cache: Cache, base: Image, tmp_path: Path
) -> None:
    for file in (base.bzimage, base.config, base.vmlinux):
        shutil.copy(file, tmp_path)
    own = Base(
        "own",
        "Built elsewhere",
        tmp_path / "own.toml",
        ImageSource(tmp_path / "bzImage", tmp_path / "config", tmp_path / "vmlinux"),
        (),
        1,
    )
    variant = Variant("base", own)
    lab = replace(lab, bases={"own": own})
    logs = set(cache.room("logs").iterdir())
    with live.guest(variant, lab, cache, Silent(), features=("virtio_pmem",)) as running:
        _, out, _ = running.guest.client.exec_command("uname -r; cat /proc/mounts", timeout=60)
        said = out.read().decode()
    image = build.find(variant, lab, cache)
    assert image is not None
    assert said.splitlines()[0] == image.release == base.release
    assert "/dev/pmem0 /mnt/pmem0 xfs" in said
    assert image.code_sha256 == base.code_sha256
    assert image.build_steps == 0
    assert set(cache.room("logs").iterdir()) == logs
