# SPDX-License-Identifier: GPL-2.0-or-later
"""The pieces of a guest's command line: the box, the clock, the devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patchlab import config
from patchlab.guests import command_line, hang
from patchlab.guests.guest import AGENT
from patchlab.model import Image, Lab
from patchlab.record import BootKind, Clock

LAB = Path(__file__).parents[2] / "lab.toml"
IMAGE = Image("k", "base", Path("/images/k"), "6.12.0", "", "", (), (), {}, "", "", 0, 0)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return config.load(LAB)


def start(kind: BootKind, clock: Clock, seed: int = 7, *, gdb: bool = False) -> command_line.Start:
    return command_line.Start(IMAGE, kind, clock, seed, gdb=gdb)


BENCH = start(BootKind.BENCH, Clock.ICOUNT)
CHECK = start(BootKind.CHECK, Clock.TCG)


def test_icount_counts_instructions_and_skips_idle_time() -> None:
    argv = command_line.clock_argv(Clock.ICOUNT)
    assert argv[argv.index("-icount") + 1] == "shift=1,sleep=off"
    assert "tcg,thread=single" in argv
    assert "-icount" not in command_line.clock_argv(Clock.TCG)
    assert command_line.clock_argv(Clock.WALL) == ["-accel", "kvm"]


def test_bench_boots_count_no_rep_instructions(lab: Lab) -> None:
    assert command_line.cpu_argv(lab.machine, BootKind.BENCH, Clock.ICOUNT) == [
        "-cpu",
        "max,-erms,-fsrm",
    ]


@pytest.mark.parametrize("clock", Clock)
def test_an_arm_may_name_another_cpu_model_on_any_clock(lab: Lab, clock: Clock) -> None:
    named = replace(lab.machine, models=(("erms", "max"), ("old", "qemu64")))
    assert command_line.cpu_argv(named, BootKind.BENCH, clock, "old") == ["-cpu", "qemu64"]


def test_the_network_reaches_nothing_but_the_forwarded_port() -> None:
    netdev = command_line.network_argv(40022)[1]
    assert netdev == "user,id=lab,restrict=on,hostfwd=tcp:127.0.0.1:40022-:22"


def test_no_control_channel_listens_on_tcp(tmp_path: Path) -> None:
    debugged = start(BootKind.CHECK, Clock.TCG, gdb=True)
    argv = command_line.control_argv(tmp_path, debugged)
    assert "tcp" not in " ".join(argv)
    assert argv[argv.index("-qmp") + 1].startswith(f"unix:{tmp_path}/")
    assert argv[argv.index("-gdb") + 1].startswith(f"unix:{tmp_path}/")
    assert "-gdb" not in command_line.control_argv(tmp_path, CHECK)


def test_qemu_denies_itself_what_it_does_not_need(tmp_path: Path) -> None:
    argv = command_line.control_argv(tmp_path, CHECK)
    for word in ("spawn=deny", "elevateprivileges=deny", "resourcecontrol=deny"):
        assert word in argv[argv.index("-sandbox") + 1]


def test_pmem_devices_are_as_declared_and_fit_above_the_memory(lab: Lab, tmp_path: Path) -> None:
    argv = command_line.pmem_argv(lab.machine, tmp_path)
    assert argv.count("-device") == len(lab.machine.pmem) == 1
    assert f"size={512 << 20}" in argv[1]
    assert "share=on" in argv[1]
    size, limit = command_line.memory_argv(lab.machine)[1].split(",")
    assert size == "size=1024M"
    assert int(limit.removeprefix("maxmem=").rstrip("M")) >= 1024 + 512


def test_icount_boots_are_repeatable_and_padded_from_the_seed() -> None:
    options = command_line.kernel_options(BENCH)
    assert {"nokaslr", "norandmaps"} <= set(options)
    assert "PYTHONHASHSEED=0" in AGENT.split()
    assert options == command_line.kernel_options(BENCH)
    other = command_line.kernel_options(start(BootKind.BENCH, Clock.ICOUNT, seed=8))
    assert [o for o in options if o not in other] == ["lab.pad=xxxxxxx"]
    assert "nokaslr" not in command_line.kernel_options(CHECK)


def test_a_check_boot_can_be_asked_by_an_nmi_and_a_bench_boot_stays_as_it_is() -> None:
    assert set(hang.NMI_OPTIONS) <= set(command_line.kernel_options(CHECK))
    assert not set(hang.NMI_OPTIONS) & set(command_line.kernel_options(BENCH))


def test_the_timer_check_of_a_loaded_host_is_left_out_only_where_time_is_real() -> None:
    assert "no_timer_check" in command_line.kernel_options(CHECK)
    assert "no_timer_check" not in command_line.kernel_options(BENCH)


def test_acceleration_is_never_left_to_virtme(lab: Lab) -> None:
    wall = start(BootKind.CHECK, Clock.WALL)
    argv = command_line.virtme_argv(wall, Path("/root.ext4"), Path("/share"), lab.machine)
    assert "--disable-kvm" in argv


def test_icount_guests_have_one_cpu(lab: Lab) -> None:
    def cpus(one: command_line.Start) -> str:
        argv = command_line.virtme_argv(one, Path("/root.ext4"), Path("/share"), lab.machine)
        return argv[argv.index("--cpus") + 1]

    assert cpus(BENCH) == "1"
    assert cpus(CHECK) == str(lab.machine.cpus) == "2"
