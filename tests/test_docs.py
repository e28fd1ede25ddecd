# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/lab-toml.md says every field that the TOML schemas have, its default, and no other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from patchlab.config import schema

TEXT = (Path(__file__).parent.parent / "docs" / "lab-toml.md").read_text(encoding="utf-8")
SECTIONS: dict[str, type[schema.Table]] = {
    "lab.toml": schema.LabFile,
    "`[machine]`": schema.MachineTable,
    "`[machine.root]`": schema.RootTable,
    "`[[machine.pmem]]`": schema.PmemTable,
    "`[sampling]`": schema.SamplingTable,
    "`[limits]`": schema.LimitsTable,
    "`[run.NAME]`": schema.RunTable,
    "kernels/&lt;base&gt;.toml": schema.BaseFile,
    '`[source]`, `kind = "debian"`': schema.DebianTable,
    '`[source]`, `kind = "deb"`': schema.DebTable,
    '`[source]`, `kind = "tarball"`': schema.TarballTable,
    '`[source]`, `kind = "git"`': schema.GitTable,
    '`[source]`, `kind = "directory"`': schema.DirectoryTable,
    '`[source]`, `kind = "image"`': schema.ImageTable,
    "`[options]`": schema.OptionsTable,
    "`[reference]`": schema.ReferenceTable,
    "patches/&lt;series&gt;/series.toml": schema.SeriesFile,
    "`[[posted]]`": schema.PostedTable,
    "`[revision.NAME]`": schema.RevisionTable,
    "`[[ledger]]`": schema.LedgerTable,
    "`[[claim]]`": schema.ClaimTable,
}
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \|([^|]*)\| ([^|]+) \|$", re.MULTILINE)


def rows(heading: str) -> dict[str, str]:
    """field -> default, as the section under ``heading`` has them."""
    section = re.split(r"^##+ ", TEXT, flags=re.MULTILINE)
    body = next(part for part in section if part.splitlines()[0] == heading)
    return {match[1]: match[3].strip() for match in ROW.finditer(body)}


def test_every_table_of_the_schema_has_a_section() -> None:
    tables = set(schema.Table.__subclasses__())
    assert tables == set(SECTIONS.values())


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_field_is_documented_and_no_other(heading: str) -> None:
    fields = [field.encode_name for field in msgspec.structs.fields(SECTIONS[heading])]
    assert sorted(rows(heading)) == sorted(fields)


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_documented_defaults_are_those_of_the_schema(heading: str) -> None:
    documented = rows(heading)
    for field in msgspec.structs.fields(SECTIONS[heading]):
        text = documented[field.encode_name]
        if field.default is msgspec.NODEFAULT:  # required, or a table with defaults of its own
            made_by_table = field.default_factory is not msgspec.NODEFAULT
            expected = ("its defaults", "", "`{}`") if made_by_table else ("",)
            assert text in expected, field.encode_name
        elif field.default is None:
            assert text == "none"
        else:
            assert toml(text.strip("`")) == plain(field.default), field.encode_name


def toml(text: str) -> Any:
    return tomllib.loads(f"value = {text}")["value"]


def plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def test_the_feature_in_the_docs_is_one(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    page = (root / "docs" / "features.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    guest = tmp_path / "guest"
    shutil.copytree(root / "guest", guest, ignore=shutil.ignore_patterns("__pycache__"))
    (guest / "features" / "memfd_map.py").write_text(code)
    table = guest / "features" / "__init__.py"
    table.write_text(table.read_text().replace("_NAMES = (", '_NAMES = ("memfd_map", '))
    requests: list[dict[str, Any]] = [
        {"op": "prepare", "feature": "memfd_map", "settings": {"pmem": [], "seed": 1}},
        {"op": "check", "feature": "memfd_map", "check": "M1", "deadline": 20},
        {"op": "measure", "feature": "memfd_map", "metric": "M.first_touch"}
        | {"samples": 2, "warmup": 1, "seed": 1, "clock": "wall"},
    ]
    lines = "".join(json.dumps({"id": n, **one}) + "\n" for n, one in enumerate(requests))
    done = subprocess.run(
        [sys.executable, "-I", str(guest / "agent.py")],
        input=lines, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["ok"] for one in replies] == [True, True, True], (replies, done.stderr)
    assert replies[1]["result"]["outcome"] == "passed"
    assert len([one for one in replies[2]["samples"] if not one["warmup"]]) == 2
