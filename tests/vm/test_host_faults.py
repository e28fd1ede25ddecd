# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that misbehaves: cut connections, cut images, full disks, caches in odd places.

What needs a file system of its own runs in a user and mount namespace, so that an ordinary
user can run it as well.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from patchlab.building import build, whole
from patchlab.errors import LostInstrument
from patchlab.guests import machine
from patchlab.model import Image, Lab, Root
from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.record import Outcome
from tests.vm import faulty, stages
from tests.vm.boots import check_start, leftovers

pytestmark = pytest.mark.vm


class Notes(Silent):
    """Progress that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


# ---------------------------------------------------------------- SSH


def test_an_ssh_server_that_dies_is_lost_and_checks_are_not_blamed(
    base: Image, guest_root: Root, lab: Lab, tmp_path: Path
) -> None:
    record = faulty.boot(base, guest_root, lab, tmp_path, faulty.NO_SSHD)
    assert record.outcome is Outcome.LOST
    assert "during 'check'" in record.reason
    assert {check.outcome for check in record.checks} == {Outcome.NOT_RUN}


def test_a_connection_that_the_host_cuts_is_lost(
    base: Image, guest_root: Root, lab: Lab, tmp_path: Path
) -> None:
    with (
        pytest.raises(LostInstrument, match="'hello'"),
        machine.boot(check_start(base), guest_root, lab.machine, lab.limits, tmp_path) as running,
    ):
        transport = running.guest.client.get_transport()
        assert transport is not None
        transport.sock.shutdown(socket.SHUT_RDWR)
        running.guest.hello(60)
    assert not leftovers()


# ---------------------------------------------------------------- full disks


@pytest.mark.parametrize(
    ("stage", "size", "where", "kept"),
    [
        ("unpack", "4m", "sources", ()),
        ("base_build", "8m", "trees", ("sources",)),
        ("variant_build", "8m", "images", ("images", "sources", "trees")),
    ],
)
def test_a_full_cache_is_said_and_nothing_half_done_stays(
    stage: str, size: str, where: str, kept: tuple[str, ...], tmp_path: Path
) -> None:
    said = stages.on_small_disk(stage, tmp_path / "disk", tmp_path / "work", size)
    assert (said.error, said.exit_code) == ("DiskFull", 69)
    assert f"no space left in {tmp_path / 'disk' / where} (" in said.message
    assert "MB more needed" in said.message
    assert "runner.py gc" in said.hint
    assert "$XDG_CACHE_HOME" in said.hint
    entries = [Path(name) for name in said.left]
    rooms = {path.parts[0] for path in entries if len(path.parts) == 2}
    assert rooms & {"sources", "trees", "images", "tmp"} == set(kept)


def test_a_full_results_folder_is_said_and_the_run_can_go_on(tmp_path: Path) -> None:
    said = stages.on_small_disk("results_database", tmp_path / "disk", tmp_path / "work", "200k")
    assert (said.error, said.exit_code) == ("DiskFull", 69)
    assert f"no space left in {tmp_path / 'disk'} (0 MB free)" in said.message
    assert "run --resume" in said.hint


def test_a_report_that_has_no_room_leaves_no_half_page(tmp_path: Path) -> None:
    said = stages.on_small_disk("report_page", tmp_path / "disk", tmp_path / "work", "200k")
    assert (said.error, said.exit_code) == ("DiskFull", 69)
    assert said.left == ("ballast",)


def test_a_boot_without_room_for_its_devices_is_lost_at_once(base: Image, tmp_path: Path) -> None:
    assert base.folder.is_dir()
    said = stages.on_small_disk("private_folder", tmp_path / "disk", tmp_path / "work", "50m")
    assert said.result.startswith("lost: the guest's pmem devices: no space left in ")
    assert "about 484 MB more needed" in said.result
    assert said.left == ()


def test_a_disk_that_nobody_foresaw_to_be_full_is_no_bug_of_the_lab(tmp_path: Path) -> None:
    """The whole command line, with a cache that has no byte left."""
    said = stages.on_small_disk("build_verb", tmp_path / "disk", tmp_path / "work", "100k")
    assert said.result.startswith("69 "), said.result
    assert "No space left on device" in said.result
    assert "bug" not in said.result


# ---------------------------------------------------------------- caches in odd places


def test_a_cache_on_another_file_system_works(tmp_path: Path) -> None:
    said = stages.on_small_disk("any_use", tmp_path / "disk", tmp_path / "work", "40m")
    assert (said.error, said.result) == ("", "same")


def test_a_cache_that_nothing_can_be_run_from_is_said_before_anything_is_built(
    tmp_path: Path,
) -> None:
    said = stages.on_small_disk("any_use", tmp_path / "disk", tmp_path / "work", "40m", "noexec")
    assert (said.error, said.exit_code) == ("MissingTool", 69)
    assert "mounted noexec" in said.message
    assert "\n" not in said.message
    assert not [name for name in said.left if name.startswith("sources/")]


# ---------------------------------------------------------------- cut files


def test_a_cut_kernel_is_made_again_before_it_is_booted(tmp_path: Path) -> None:
    variant = stages.small_base(tmp_path, size=1000)
    lab, cache, notes = stages.small_lab(), Cache(tmp_path / "cache"), Notes()
    first = build.build(variant, lab, cache, Silent())
    os.truncate(first.bzimage, 500)
    assert build.find(variant, lab, cache) is None
    again = build.build(variant, lab, cache, notes)
    assert again == first
    assert again.bzimage.stat().st_size == 1000
    [note] = notes.lines
    assert str(first.folder) in note
    assert "its bzImage (500 bytes) is not the one that was built; taken out" in note


def test_a_cut_vmlinux_and_a_lost_manifest_are_noticed_too(tmp_path: Path) -> None:
    variant = stages.small_base(tmp_path)
    lab, cache = stages.small_lab(), Cache(tmp_path / "cache")
    image = build.build(variant, lab, cache, Silent())
    whole_size = image.vmlinux.stat().st_size
    os.truncate(image.vmlinux, whole_size - 1)
    assert "its vmlinux has" in whole.image_damage(image.folder)
    (image.folder / "image.json").unlink()
    assert "not a whole image" in whole.image_damage(image.folder)
    assert build.build(variant, lab, cache, Silent()).vmlinux.stat().st_size == whole_size


def test_a_cut_guest_root_is_noticed(guest_root: Root, tmp_path: Path) -> None:
    folder = guest_root.disk.parent
    assert whole.root_damage(folder) == ""
    (tmp_path / "root.json").touch()
    with guest_root.disk.open("rb") as disk:
        (tmp_path / "root.ext4").write_bytes(disk.read(1 << 20))
    assert "root.ext4 has 1,048,576 of" in whole.root_damage(tmp_path)
    os.truncate(tmp_path / "root.ext4", 100)
    assert "is no ext4 image" in whole.root_damage(tmp_path)
