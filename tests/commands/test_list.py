# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from patchlab.commands import list_
from patchlab.commands.desk import Desk
from patchlab.paths import Cache
from patchlab.progress import Silent
from tests.config import small_lab

LEDGER = """
[[ledger]]
id = "unbound"
who = "A reviewer"
date = "2009"
demand = "Something."
answered = { v1 = "It is so." }

[[ledger]]
id = "argued"
who = "A reviewer"
date = "2009"
demand = "Say why."
checks = ["B1", "B999"]
rules = ["changelog-argues:vm_ops"]
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A small lab whose series is exercised by a feature that the agent has."""
    file = small_lab.make(tmp_path)
    small_lab.edit(file, '["mapping"]', '["fuse_writable_mmap"]')
    for name in ("alpha", "beta"):
        series = tmp_path / "patches" / name / "series.toml"
        small_lab.edit(series, '"mapping"', '"fuse_writable_mmap"')
    alpha = tmp_path / "patches/alpha/series.toml"
    alpha.write_text(alpha.read_text() + LEDGER)
    return file


def listed(lab: Path, *, as_json: bool) -> str:
    out = Console(file=io.StringIO(), width=160)
    desk = Desk(lab, Cache(lab.parent / "cache"), out, Silent(), ("runner.py", "list"))
    assert list_.run(argparse.Namespace(json=as_json), desk) == 0
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_a_ledger_says_which_of_its_checks_do_not_exist(lab: Path) -> None:
    document = json.loads(listed(lab, as_json=True))
    (alpha,) = [series for series in document["series"] if series["name"] == "alpha"]
    demands = {demand["id"]: demand for demand in alpha["ledger"]}
    assert list(demands) == ["works", "unbound", "argued"]
    assert demands["works"]["missing"] == ["A1", "A99"]
    assert demands["argued"]["checks"] == ["B1", "B999"]
    assert demands["argued"]["missing"] == ["B999"]
    assert demands["argued"]["rules"] == ["changelog-argues:vm_ops"]
    assert demands["unbound"]["answered"] == {"v1": "It is so."}


def test_the_tables_show_what_decides_each_demand(lab: Path) -> None:
    lines = [" ".join(line.split()) for line in listed(lab, as_json=False).splitlines()]
    head = lines.index("review ledgers")
    assert lines[head + 3] == "alpha unbound A reviewer, 2009 nothing: undecided"
    assert lines[head + 4] == (
        "alpha argued A reviewer, 2009 B1, B999 (no such check), changelog-argues:vm_ops"
    )


def test_every_base_is_shown_with_its_source(lab: Path) -> None:
    bases = {
        base["name"]: base["source"] for base in json.loads(listed(lab, as_json=True))["bases"]
    }
    assert bases == {
        "linux-6.1": "Debian linux-source-6.1",
        "linux-6.12": "Debian linux-source-6.12",
    }
    assert "Debian linux-source-6.12" in listed(lab, as_json=False)
