# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that is built already: taken as it is, and refused when it cannot work here."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from patchlab import config
from patchlab.building import build
from patchlab.errors import UsageError
from patchlab.model import Lab
from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.sources import image
from tests.config import small_lab

TOML = """\
title = "Built by hand"

[source]
kind = "image"
bzimage = "../arch/x86/boot/bzImage"
config = "../.config"
"""
OPTIONS = (*image.GUEST, *image.PMEM, "XFS_FS")


def bzimage(release: str) -> bytes:
    """The first bytes of one: Documentation/arch/x86/boot.rst, offsets 0x202 and 0x20e."""
    head = bytearray(0x1000)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x400)
    text = f"{release} (a@b) #1 SMP".encode()
    head[0x600 : 0x600 + len(text)] = text
    return bytes(head)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """The small lab with its base replaced by an image, and no run that has patches."""
    file = small_lab.make(tmp_path)
    small_lab.write(tmp_path / "kernels/mine.toml", TOML)
    (tmp_path / "arch/x86/boot").mkdir(parents=True)
    (tmp_path / "arch/x86/boot/bzImage").write_bytes(bzimage("6.99.0-mine+"))
    (tmp_path / ".config").write_text("".join(f"CONFIG_{name}=y\n" for name in OPTIONS))
    small_lab.edit(file, 'base = "linux-6.12"', 'base = "mine"')
    small_lab.edit(file, '["base", "alpha@v1", "alpha@v2 + beta@v1"]', '["base"]')
    return small_lab.load(file)


def test_it_is_taken_without_any_build(lab: Lab, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    variant = config.find_variant(lab, "base")
    assert build.find(variant, lab, cache) is None
    made = build.build(variant, lab, cache, Silent())
    assert build.find(variant, lab, cache) == made
    assert (made.release, made.build_steps, made.patches) == ("6.99.0-mine+", 0, ())
    assert made.bzimage.read_bytes() == (tmp_path / "arch/x86/boot/bzImage").read_bytes()
    assert made.config.read_text() == (tmp_path / ".config").read_text()
    assert f"{made.source_package} {made.source_version}".startswith("image bzImage ")
    assert not any(cache.room("trees").iterdir())


def test_what_the_lab_needs_and_the_config_lacks_is_named_before_any_boot(
    lab: Lab, tmp_path: Path
) -> None:
    text = (tmp_path / ".config").read_text()
    text = text.replace("CONFIG_VIRTIO_PMEM=y", "CONFIG_VIRTIO_PMEM=m")
    (tmp_path / ".config").write_text(text.replace("CONFIG_XFS_FS=y\n", ""))
    variant = config.find_variant(lab, "base")
    with pytest.raises(UsageError, match=r"kernels/mine\.toml:6: config: ") as caught:
        build.build(variant, lab, Cache(tmp_path / "cache"), Silent())
    assert "CONFIG_VIRTIO_PMEM (is a module), CONFIG_XFS_FS (not set)" in str(caught.value)


@pytest.mark.parametrize("text", ["config:debug", "./fix.patch", "base + config:debug"])
def test_nothing_can_be_put_into_it(lab: Lab, tmp_path: Path, text: str) -> None:
    (tmp_path / "fix.patch").write_text(small_lab.PATCH.format(tag="1/1", subject="fix"))
    place = config.Place(tmp_path, Cache(tmp_path / "cache"))
    with pytest.raises(UsageError, match="base 'mine' is an image that is built") as caught:
        config.find_variant(lab, text, place)
    assert "git, directory" in caught.value.hint


def test_a_file_that_is_no_kernel_or_not_there_is_named(lab: Lab, tmp_path: Path) -> None:
    cache, file = Cache(tmp_path / "cache"), tmp_path / "arch/x86/boot/bzImage"
    file.write_bytes(b"\x7fELF" + bytes(0x1000))
    with pytest.raises(UsageError, match=r"kernels/mine\.toml:5: bzimage: .* is no bzImage"):
        build.build(config.find_variant(lab, "base"), lab, cache, Silent())
    file.unlink()
    with pytest.raises(UsageError, match=r"kernels/mine\.toml:5: bzimage: .*no such file"):
        build.build(config.find_variant(lab, "base"), lab, cache, Silent())
