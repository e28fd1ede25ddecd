# SPDX-License-Identifier: GPL-2.0-or-later
"""Small kernels for these tests: a few functions, linked where Linux has its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from patchlab.explain import symbols
from patchlab.explain.symbols import Symbols

# first() stands in front of all others: when it grows, everything moves.
SOURCE = r"""
typedef unsigned long u64;
static const char *const words[] = { "a word", "another word" };
int state[16];
void say(const char *text, u64 value);
__attribute__((noinline)) u64 first(u64 a) { return FIRST; }
__attribute__((noinline)) void tell(u64 a) { say("tell has a string", a); say(words[a], a); }
__attribute__((noinline)) u64 masked(u64 a) { return a & 0xffffffff81000000UL; }
__attribute__((noinline)) int indexed(u64 a) { return state[a] + state[0]; }
__attribute__((noinline)) void say(const char *text, u64 value) { state[3] = text[value]; }
MORE
void _start(void) { tell(first(1)); tell(masked(indexed(2))); }
"""
FIRST = "a + 1"
GROWN = "a * 7 + (a >> 3) * 5 + (u64)state[a & 7] + (a ^ 0x1234)"
MORE = "__attribute__((noinline, used)) int more(int a) { return a * a + 3; }"


def vmlinux(to: Path, first: str = FIRST, more: str = "", text: str = SOURCE) -> Path:
    """A statically linked file with symbols at the addresses of a kernel."""
    source = to.with_suffix(".c")
    source.write_text(text.replace("FIRST", first).replace("MORE", more))
    flags = ["-O2", "-mcmodel=kernel", "-fno-pic", "-no-pie", "-nostdlib", "-static"]
    flags += ["-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-fno-toplevel-reorder"]
    places = "-Wl,-Ttext=0xffffffff81000000,-Tdata=0xffffffff82000000,--build-id=none"
    subprocess.run(["gcc", *flags, places, str(source), "-o", str(to)], check=True)
    return to


def read(file: Path) -> Symbols:
    return symbols.read(memoryview(file.read_bytes()), str(file))


def disassembled(file: Path) -> list[str]:
    argv = ["objdump", "-d", "--no-show-raw-insn", "-w", str(file)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines(
        keepends=True
    )
