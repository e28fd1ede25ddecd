# SPDX-License-Identifier: GPL-2.0-or-later
"""The counter in a real QEMU, on a few instructions that need no kernel."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from guest import tracing
from patchlab.explain import counts, trace
from patchlab.explain.counts import Counts
from patchlab.guests import command_line

TURNS = 1000
# A multiboot image (its header is the first three words) that ends QEMU by isa-debug-exit.
SOURCE = """
    .long 0x1badb002, 0, -0x1badb002
    .globl _start
_start:
    mov $7, %ecx
before:
    loop before
    {start}
    mov ${turns}, %ecx
inside:
    loop inside
    {stop}
    {start}
    {stop}
    mov $0, %al
    out %al, $0xf4
    hlt
"""
LOADED = 0x100000


def image(folder: Path) -> Path:
    def data(which: bytes) -> str:
        return ".byte " + ", ".join(str(byte) for byte in tracing.MARK + which)

    source, elf = folder / "small.S", folder / "small"
    source.write_text(
        SOURCE.format(start=data(tracing.START), stop=data(tracing.STOP), turns=TURNS)
    )
    flags = ["-m32", "-nostdlib", "-static", f"-Wl,-Ttext={LOADED:#x},--build-id=none"]
    subprocess.run(["gcc", *flags, str(source), "-o", str(elf)], check=True)
    return elf


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Counts, ...]:
    folder = tmp_path_factory.mktemp("counter")
    counted, plugin = folder / command_line.COUNTS, trace.compiled(folder)
    argv = [command_line.QEMU, "-machine", "q35", "-display", "none", "-nodefaults", "-no-reboot"]
    argv += ["-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off", "-m", "32"]
    argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", str(image(folder))]
    argv += ["-plugin", f"file={plugin},out={counted}"]
    assert subprocess.run(argv, timeout=60, check=False).returncode == 1
    return counts.parse(counted.read_bytes())


def test_each_instruction_is_counted_as_often_as_it_runs(windows: tuple[Counts, ...]) -> None:
    first, second = windows
    marks = len(tracing.MARK) + 2
    move = LOADED + 12 + 5 + 2 + marks
    assert (first[move], first[move + 5]) == (1, TURNS)
    assert set(first) <= {move - marks, move, move + 5, move + 7}
    assert sum(second.values()) <= 2
    assert not any(address < LOADED + 19 for window in windows for address in window)
