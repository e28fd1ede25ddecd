# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from patchlab import proc
from tests.proving import bare, machines

LISTING = """\
:env:.cert='/etc/ssl/own.crt'
:env:.find-links='/srv/wheels'
global.cert='/etc/ssl/certs/ca-certificates.crt'
global.extra-index-url='file:///srv/a/simple\\nfile:///srv/b/simple'
global.timeout='60'
list.format='columns'
"""


def ran(code: int, *, held: bool) -> machines.Ran:
    return machines.Ran("make lab", code, 61.2, held, ("one | two", "three"))


def tried(*commands: machines.Ran) -> machines.Tried:
    versions = {"Debian": "13.1", "gcc": "gcc (Debian 14.2.0-1) 14.2.0"}
    when = "2026-01-01T00:00:00+00:00"
    return machines.Tried("k", "Debian trixie", "lent", versions, commands, "abc", when)


def test_pip_s_index_is_handed_in_as_environment() -> None:
    assert bare.pip_variables(LISTING) == {
        "PIP_CERT": "/etc/ssl/own.crt",
        "PIP_FIND_LINKS": "/srv/wheels",
        "PIP_EXTRA_INDEX_URL": "file:///srv/a/simple file:///srv/b/simple",
        "PIP_TIMEOUT": "60",
    }


def test_a_machine_that_did_not_do_as_claimed_stands_out() -> None:
    good, bad = tried(ran(0, held=True)), tried(ran(69, held=False))
    assert good.held
    assert not bad.held
    assert "| make lab | 0 | 61 | `three` |" in machines.page([good])
    assert "| make lab | **69 (!)** | 61 | `three` |" in machines.page([bad])
    assert "gcc (Debian 14.2.0-1)" in machines.page([good])


@pytest.mark.parametrize(
    ("shell", "codes", "says", "held"),
    [
        ("echo in 12 only; exit 69", (69,), "12 only", True),
        ("echo something else; exit 69", (69,), "12 only", False),
        ("exit 0", (69,), "", False),
    ],
)
def test_a_command_holds_by_its_code_and_its_words(
    shell: str, codes: tuple[int, ...], says: str, held: bool, tmp_path: Path
) -> None:
    def door(command: str, log: Path) -> proc.Completed:
        return proc.run(["sh", "-c", command], deadline=20, log=log, ok=range(256))

    command = machines.Command("it", shell, codes, says)
    assert machines.run(command, door, tmp_path / "log").held is held
