# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from patchlab import proc
from patchlab.building.elf import code_digest
from patchlab.errors import BuildError

PROGRAM = "int answer(void) { return %d; }\nint _start(void) { return answer(); }\n"

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


def compiled(folder: Path, name: str, answer: int, *options: str) -> Path:
    source = folder / f"{name}.c"
    source.write_text(PROGRAM % answer)
    argv = ["gcc", "-O1", "-nostdlib", "-static", *options, "-o", name, source.name]
    proc.run(argv, deadline=30, cwd=folder)
    return folder / name


def test_equal_code_with_another_build_id_and_debug_info_has_an_equal_digest(
    tmp_path: Path,
) -> None:
    first = compiled(tmp_path, "first", 1, "-Wl,--build-id=0x1111")
    second = compiled(tmp_path, "second", 1, "-Wl,--build-id=0x2222", "-g")
    assert first.read_bytes() != second.read_bytes()
    assert code_digest(first) == code_digest(second)


def test_other_code_has_another_digest(tmp_path: Path) -> None:
    assert code_digest(compiled(tmp_path, "a", 1)) != code_digest(compiled(tmp_path, "b", 2))


@pytest.mark.parametrize("size", [0, 3, 63, 64, 2000])
def test_a_cut_off_file_is_an_error(tmp_path: Path, size: int) -> None:
    whole = compiled(tmp_path, "whole", 1).read_bytes()
    (tmp_path / "cut").write_bytes(whole[:size])
    with pytest.raises(BuildError, match="not a whole ELF-64 file"):
        code_digest(tmp_path / "cut")


def test_section_headers_past_the_end_are_an_error(tmp_path: Path) -> None:
    data = bytearray(compiled(tmp_path, "whole", 1).read_bytes())
    data[40:48] = (2**63).to_bytes(8, "little")
    (tmp_path / "wild").write_bytes(data)
    with pytest.raises(BuildError, match="not a whole ELF-64 file"):
        code_digest(tmp_path / "wild")
