# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab that is shipped loads, and a slip of the pen in it is found where it is."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from guest.features import FEATURES
from patchlab import config
from patchlab.config import schema
from patchlab.config.toml import read
from patchlab.errors import UsageError
from patchlab.model import DebianSource

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "lab.toml").read_text(encoding="utf-8")
LINES = TEXT.splitlines()


def test_the_shipped_lab_loads() -> None:
    lab = config.load(ROOT / "lab.toml")
    run = lab.runs[lab.default_run]
    revisions = [f"fuse-writable-mmap@{name}" for name in ("control", "v2", "v3")]
    assert [arm.name for arm in run.arms] == ["base", *revisions]
    assert run.baseline == "base"
    assert run.features == ("fuse_writable_mmap", "virtio_pmem")
    source = lab.bases["linux-6.12"].source
    assert isinstance(source, DebianSource)
    assert source.package == "linux-source-6.12"
    series = lab.series["fuse-writable-mmap"]
    assert all(revision.patches for revision in series.revisions)


def test_every_folder_that_is_shipped_is_in_the_lab() -> None:
    lab = config.load(ROOT / "lab.toml")
    assert set(lab.bases) == {file.stem for file in (ROOT / "kernels").glob("linux-*.toml")}
    assert set(lab.series) == {file.parent.name for file in ROOT.glob("patches/*/series.toml")}


@pytest.mark.parametrize("name", ["fuse-direct-mmap", "fuse-writable-mmap"])
def test_every_check_of_a_ledger_is_one_that_the_agent_has(name: str) -> None:
    series = config.load(ROOT / "lab.toml").series[name]
    known = {check.id for check in FEATURES[series.feature].checks}
    assert series.ledger
    assert {check for demand in series.ledger for check in demand.checks} <= known
    assert all(demand.checks or demand.rules for demand in series.ledger)
    metrics = {metric.id for metric in FEATURES[series.feature].metrics}
    assert {claim.metric for claim in series.claims} <= metrics


def test_a_feature_is_what_the_agent_knows_and_no_module_beside_it() -> None:
    assert config.feature_names(config.FEATURES) == set(FEATURES)


@cache
def names() -> frozenset[str]:
    """Every key of every table, so that a slip is not another key by chance."""
    tables = schema.Table.__subclasses__()
    return frozenset(
        field.encode_name for table in tables for field in msgspec.structs.fields(table)
    )


# A key at the start of a line, or the last part of a header whose name the schema fixes.
PLACE = re.compile(r"(?:\[+(?:machine\.)?(?=\w+\]))?(\w+)(?: =|\])")
PLACES = [
    (number, match.start(1), match.end(1))
    for number, line in enumerate(LINES, 1)
    for match in [PLACE.match(line)]
    if match
]


def test_the_shipped_lab_shows_every_field_and_the_property_below_covers_them() -> None:
    shown = {LINES[number - 1][start:end] for number, start, end in PLACES}
    tables = (
        schema.LabFile,
        schema.MachineTable,
        schema.RootTable,
        schema.PmemTable,
        schema.SamplingTable,
        schema.LimitsTable,
        schema.RunTable,
    )
    fields = {field.encode_name for table in tables for field in msgspec.structs.fields(table)}
    optional = {"looks"}  # a lab that wants none is silent
    assert shown == fields - {"run"} - optional  # the header of a run ends in a free name


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slip") / "lab.toml"


# No deadline: the host may be building a kernel.
@settings(deadline=None, max_examples=60)
@given(st.sampled_from(PLACES), st.integers(0, 20), st.sampled_from("qxz_"), st.booleans())
def test_a_misspelt_key_is_reported_at_its_line(
    file: Path, place: tuple[int, int, int], at: int, letter: str, insert: bool
) -> None:
    number, start, end = place
    line = LINES[number - 1]
    right = line[start:end]
    cut = at % len(right)
    wrong = right[:cut] + letter + right[cut + (0 if insert else 1) :]
    assume(wrong != right)  # a z for a z
    assert wrong not in names()
    lines = list(LINES)
    lines[number - 1] = line[:start] + wrong + line[end:]
    if right == "machine":  # its other headers must not make a second [machine]
        lines = [
            text.replace("machine.", f"{wrong}.") if text[:1] == "[" else text for text in lines
        ]
    expected = f":{number}: unknown key '{wrong}' "
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read(file, schema.LabFile)
    assert expected in str(caught.value)
