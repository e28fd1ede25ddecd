# SPDX-License-Identifier: GPL-2.0-or-later
"""The files behind a guest's devices: sparse, room looked for first, gone with a killed lab."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from patchlab import config, full, scratch
from patchlab.guests import command_line, machine
from patchlab.model import Machine

LAB = Path(__file__).parents[2] / "lab.toml"
# A lab that is killed when its guest's files are there.
KILLED = """
import sys, time
from pathlib import Path
from patchlab import config, scratch
from patchlab.guests import command_line, machine
lab = config.load(Path(sys.argv[1]))
with scratch.folder("boot", Path(sys.argv[2])) as private:
    machine._backing_files(lab.machine, private)
    print("there", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def declared() -> Machine:
    return replace(config.load(LAB).machine, disk=512 << 20)


def test_they_are_as_large_as_declared_and_take_no_room(declared: Machine, tmp_path: Path) -> None:
    files = machine._backing_files(declared, tmp_path)
    assert [file.stat().st_size for file in files] == [device.size for device in declared.pmem]
    assert (tmp_path / "disk0").stat().st_size == declared.disk
    assert sum(file.stat().st_blocks for file in tmp_path.iterdir()) == 0


def test_room_for_all_of_them_is_looked_for_first(declared: Machine, tmp_path: Path) -> None:
    greedy = replace(declared, disk=1 << 60)
    with pytest.raises(full.DiskFull, match="no space left"):
        machine._backing_files(greedy, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_lab_leaves_none_behind(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", KILLED, str(LAB), str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=LAB.parent) as lab:
        assert lab.stdout is not None
        assert lab.stdout.readline() == b"there\n"
        assert scratch.clean(tmp_path) == ()  # it lives
        assert len(list(tmp_path.glob("*/pmem0"))) == 1
        os.kill(lab.pid, signal.SIGKILL)
    assert len(scratch.clean(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_disk_is_of_a_run_and_not_of_every_machine(declared: Machine, tmp_path: Path) -> None:
    lab = config.load(LAB)
    assert lab.machine.disk == 0
    assert command_line.disk_argv(lab.machine, tmp_path) == []
    assert lab.runs["map-direct"].disk == declared.disk
    assert "serial=lab.disk" in " ".join(command_line.disk_argv(declared, tmp_path))
