# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine with several pmem devices, as QEMU and the guest's agent are told of it."""

from __future__ import annotations

from pathlib import Path

from patchlab import config
from patchlab.guests import command_line
from patchlab.runs import measure

LAB = Path(__file__).parents[1] / "labs" / "two-pmem" / "lab.toml"


def test_each_device_has_a_file_of_its_own_in_the_order_of_the_lab(tmp_path: Path) -> None:
    argv = command_line.pmem_argv(config.load(LAB).machine, tmp_path)
    assert argv == [
        *("-object", f"memory-backend-file,id=mem0,share=on,mem-path={tmp_path}/pmem0,"
          f"size={512 << 20}"),
        *("-device", "virtio-pmem-pci,memdev=mem0,id=pmem0"),
        *("-object", f"memory-backend-file,id=mem1,share=on,mem-path={tmp_path}/pmem1,"
          f"size={256 << 20}"),
        *("-device", "virtio-pmem-pci,memdev=mem1,id=pmem1"),
    ]  # fmt: skip


def test_the_memory_has_room_for_all_devices() -> None:
    lab = config.load(LAB)
    [_, words] = command_line.memory_argv(lab.machine)
    sizes = dict(word.split("=") for word in words.split(","))
    assert sizes["size"] == "1024M"
    assert int(sizes["maxmem"].removesuffix("M")) >= 1024 + 512 + 256


def test_the_agent_is_told_of_each_device() -> None:
    told = measure.settings(config.load(LAB), seed=1)["pmem"]
    assert [(one["name"], one["filesystem"]) for one in told] == [
        ("fast", "xfs"),
        ("other", "ext4"),
    ]
    assert told[1]["mount"] == ["dax=always", "commit=30"]
