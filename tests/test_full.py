# SPDX-License-Identifier: GPL-2.0-or-later
"""What counts as a full disk, and what is said of it. /dev/full is a disk that always is."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchlab import full, proc
from patchlab.errors import BuildError, LabError, PatchError

FULL = Path("/dev/full")
GIB = 1 << 30


def no_room() -> None:
    with FULL.open("wb", buffering=0) as file:
        file.write(b"x")


def test_a_write_that_finds_no_room_is_told_with_folder_and_remedy(tmp_path: Path) -> None:
    with (
        pytest.raises(full.DiskFull) as caught,
        full.told("a report", tmp_path, full.RESULTS_REMEDY),
    ):
        no_room()
    assert caught.value.exit_code == 69
    assert str(caught.value).startswith(f"a report: no space left in {tmp_path} (")
    assert "run --resume" in caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)


def test_a_tool_that_found_no_room_is_understood_behind_the_lab_s_own_error(
    tmp_path: Path,
) -> None:
    with pytest.raises(full.DiskFull), full.told("a build", tmp_path, full.CACHE_REMEDY):
        try:
            proc.run(["dd", "if=/dev/zero", f"of={FULL}", "count=1"], deadline=20)
        except proc.CommandFailed as error:
            raise BuildError("make failed") from error


@pytest.mark.parametrize("error", [BuildError("make failed"), KeyError("x"), OSError(13, "denied")])
def test_another_error_stays_what_it_is(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, full.told("a", tmp_path, full.TMP_REMEDY):
        raise error
    assert caught.value is error


def test_what_is_missing_is_said_before_it_is_tried(tmp_path: Path) -> None:
    there = full.free(tmp_path)
    full.require("a boot", tmp_path, there // 2, full.TMP_REMEDY)
    with pytest.raises(full.DiskFull, match=r"about 1,07\d MB more needed") as caught:
        full.require("a boot", tmp_path, there + GIB, full.TMP_REMEDY)
    assert "$TMPDIR" in caught.value.hint


def test_the_fullest_of_our_folders_is_named_when_nobody_knows_which(tmp_path: Path) -> None:
    places = {tmp_path / "not" / "there": "make room"}
    assert full.located(ValueError("x"), places) is None
    found = full.located(OSError(28, "No space left on device"), places)
    assert isinstance(found, LabError)
    assert found.hint == "make room"
    assert str(tmp_path) in str(found)


def test_a_bad_patch_on_a_full_disk_is_a_bad_patch() -> None:
    proc_folder = Path("/proc")  # a file system without a free byte
    assert full.free(proc_folder) == 0
    assert full.is_full(BuildError("make failed"), proc_folder)
    assert not full.is_full(PatchError("hunk 1 does not apply"), proc_folder)
