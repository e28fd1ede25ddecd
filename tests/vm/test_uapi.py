# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's FUSE structs against the header of each kernel that has them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from guest.fuse import protocol
from patchlab import config, proc
from patchlab.building import series
from patchlab.model import Lab
from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.reviews import inspection
from patchlab.sources import source

pytestmark = pytest.mark.vm

_HEADER = "include/uapi/linux/fuse.h"
_VARIANTS = sorted({name for one in protocol.LAYOUTS.values() for name in one.variants})


@pytest.mark.parametrize("name", _VARIANTS)
def test_every_struct_has_the_kernels_size_and_offsets(
    name: str, lab: Lab, cache: Cache, tmp_path: Path
) -> None:
    lines, expected = [], []
    for struct_name, layout in protocol.LAYOUTS.items():
        if name not in layout.variants:
            continue
        lines.append(f'printf("{struct_name} %zu\\n", sizeof(struct {struct_name}));')
        expected.append(f"{struct_name} {struct.calcsize(layout.form)}")
        for member, offset in layout.members:
            place = f"{struct_name}.{member}"
            lines.append(f'printf("{place} %zu\\n", offsetof(struct {struct_name}, {member}));')
            expected.append(f"{place} {offset}")
    assert len(expected) > (100 if name == "base" else 20)
    program = tmp_path / "layout.c"
    program.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <stdint.h>\n"
        f'#include "{_header(name, lab, cache, tmp_path / "tree")}"\n'
        "int main(void) {\n" + "\n".join(lines) + "\nreturn 0; }\n"
    )
    binary = tmp_path / "layout"
    proc.run(["gcc", "-o", str(binary), str(program)], deadline=60)
    assert proc.run([str(binary)], deadline=10).output.splitlines() == expected


def _header(name: str, lab: Lab, cache: Cache, to: Path) -> Path:
    variant = config.find_variant(lab, name)
    pristine = source.fetch(lab.bases["linux-6.12"], cache, Silent()).folder
    if not variant.revisions:
        return pristine / _HEADER
    to.mkdir()
    inspection.copy_named(pristine, variant.revisions, to)
    series.apply(to, variant.revisions, Silent())
    return to / _HEADER
