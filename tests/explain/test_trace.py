# SPDX-License-Identifier: GPL-2.0-or-later
"""The counter, and its other half in the guest."""

from __future__ import annotations

import ctypes
import re
import subprocess
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from random import Random

import pytest

from guest import tracing
from guest.words import Bench, Context, Metric
from patchlab.errors import MissingTool
from patchlab.explain import trace

COUNTER = Path(trace.__file__).with_name("counter.c")


def test_the_counter_compiles_for_this_hosts_qemu(tmp_path: Path) -> None:
    plugin = ctypes.CDLL(str(trace.compiled(tmp_path)), mode=1)  # its imports are QEMU's
    assert ctypes.c_int.in_dll(plugin, "qemu_plugin_version").value in (1, 4)


@pytest.mark.parametrize("api", [1, 4])
def test_the_counter_compiles_without_a_warning(tmp_path: Path, api: int) -> None:
    argv = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-DAPI={api}"]
    subprocess.run([*argv, str(COUNTER), "-o", str(tmp_path / "counter.so")], check=True)


@pytest.mark.parametrize(
    ("version", "api"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", 1),
        ("QEMU emulator version 8.2.0", 1),
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)", 4),
    ],
)
def test_the_plugin_interface_follows_the_version(version: str, api: int) -> None:
    assert trace.api(version) == api


@pytest.mark.parametrize("version", ["QEMU emulator version 9.0.1", "version 4.1.0", "no QEMU"])
def test_another_qemu_is_refused_by_name(version: str) -> None:
    with pytest.raises(MissingTool, match=re.escape(version)):
        trace.api(version)


@pytest.mark.parametrize("name", ["START", "STOP"])
def test_both_halves_have_the_same_marks(name: str) -> None:
    found = re.search(rf"{name}\[\] = {{ (.*?) }}", COUNTER.read_text())
    assert found
    which = {"START": tracing.START, "STOP": tracing.STOP}[name]
    assert bytes(int(byte, 16) for byte in found[1].split(", ")) == tracing.MARK + which


def metric() -> tuple[Metric, list[str]]:
    calls: list[str] = []

    def bench(_context: Context, rounds: int) -> AbstractContextManager[Bench]:
        calls.append(f"for {rounds}")
        return nullcontext(
            Bench(
                lambda: calls.append("window"),
                5,
                lambda: calls.append("before"),
                lambda: calls.append("after"),
            )
        )

    return Metric("T.one", "", "unit", bench), calls


def test_every_window_is_told_and_the_first_is_empty(tmp_path: Path) -> None:
    one, calls = metric()
    told = tracing.trace(one, Context(tmp_path, Random(3), {}), samples=4, warmup=2)
    rounds = len(told["windows"]) - 1
    assert calls == [f"for {rounds}", *["before", "window", "after"] * rounds]
    assert told["skipped"] == rounds - 4 + 1
    assert told["units"] == 5
    assert all(w["ns"] > 0 and w["faults"] >= w["major"] >= 0 for w in told["windows"])
    libc = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value or 0
    assert any("libc" in file for start, end, file in told["maps"] if start <= libc < end)


def test_only_what_may_be_executed_is_kept_of_maps() -> None:
    maps = (
        "555555554000-5555555a0000 r--p 00000000 08:01 12 /usr/bin/python3.13\n"
        "5555555a0000-555555900000 r-xp 0004c000 08:01 12 /usr/bin/python3.13\n"
        "7ffff7fbf000-7ffff7fc0000 rwxp 00000000 00:00 0 \n"
        "7ffff7fc1000-7ffff7fc3000 r-xp 00000000 00:00 0                          [vdso]\n"
    )
    assert tracing.executable(maps) == [
        (0x5555555A0000, 0x555555900000, "/usr/bin/python3.13"),
        (0x7FFFF7FBF000, 0x7FFFF7FC0000, "anonymous"),
        (0x7FFFF7FC1000, 0x7FFFF7FC3000, "[vdso]"),
    ]
