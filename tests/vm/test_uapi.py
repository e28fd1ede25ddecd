# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's FUSE structs against the header of the kernel that was built."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from guest.fuse import protocol
from patchlab import proc, source
from patchlab.model import Lab
from patchlab.paths import Cache
from patchlab.progress import Silent

pytestmark = pytest.mark.vm


def test_every_struct_has_the_kernels_size_and_offsets(
    lab: Lab, cache: Cache, tmp_path: Path
) -> None:
    tree = source.fetch(lab.bases["linux-6.12"], cache, Silent()).folder
    lines, expected = [], []
    for name, (form, members) in protocol.LAYOUTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        expected.append(f"{name} {struct.calcsize(form)}")
        for member, offset in members:
            lines.append(f'printf("{name}.{member} %zu\\n", offsetof(struct {name}, {member}));')
            expected.append(f"{name}.{member} {offset}")
    assert len(expected) > 100
    program = tmp_path / "layout.c"
    program.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <stdint.h>\n"
        f'#include "{tree / "include/uapi/linux/fuse.h"}"\n'
        "int main(void) {\n" + "\n".join(lines) + "\nreturn 0; }\n"
    )
    binary = tmp_path / "layout"
    proc.run(["gcc", "-o", str(binary), str(program)], deadline=60)
    assert proc.run([str(binary)], deadline=10).output.splitlines() == expected
