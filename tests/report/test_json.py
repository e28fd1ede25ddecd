# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from patchlab.record import Sample, StoredRun
from patchlab.report import json_
from patchlab.verdicts import calibration, compare
from tests.report import calibration_run, review_run, sample_run

DOCS = Path(__file__).parents[2] / "docs" / "json.md"
# Their keys are names that the user or the guest chose.
OPEN = {"stages", "images", "toolchain", "host", "root", "machine", "facts", "answered"}


def document(run: StoredRun) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(json_.render(run, compare.compare_all(run)))
    return loaded


def keys(value: Any, above: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            if above not in OPEN:
                yield key
            yield from keys(entry, key if above not in OPEN else "")
    elif isinstance(value, list):
        for entry in value:
            yield from keys(entry)


def test_every_key_is_documented_and_every_documented_key_is_there() -> None:
    text = DOCS.read_text(encoding="utf-8")
    section = text[text.index("## run --json") :].split("\n## ")[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    calibrated = dataclasses.replace(
        sample_run.sample_run(),
        calibration=calibration.summarise(calibration_run.run(blocks=5)),
    )
    runs = (calibrated, review_run.review_run())
    assert documented == {key for run in runs for key in keys(document(run))}


def test_the_head_names_the_format() -> None:
    text = json_.render(sample_run.sample_run(), [])
    assert text.startswith('{\n  "format": "patchlab-run/1",')
    assert text.endswith("}\n")


def test_a_program_can_read_outcomes_and_verdicts() -> None:
    got = document(sample_run.sample_run())
    (comparison,) = got["comparisons"]
    checks = {check["id"]: check for check in comparison["checks"]}
    assert checks["B1"]["change"] == "gone"
    assert checks["B1"]["candidate"]["outcome"] == "unsupported"
    assert checks["B12"]["regression"] is True
    metrics = {metric["metric"]["id"]: metric for metric in comparison["metrics"]}
    assert metrics["dax-first"]["verdict"] == "faster"
    assert metrics["dax-first"]["low"] < metrics["dax-first"]["ratio"] < 0
    assert metrics["dirty-msync"]["candidate"] is None


def test_every_raw_sample_is_there_and_no_console_log() -> None:
    run = sample_run.sample_run()
    got = document(run)
    assert [len(b["samples"]) for b in got["boots"]] == [len(b.samples) for b in run.boots]
    assert not any("console" in boot for boot in got["boots"])


def test_a_number_that_is_none_becomes_null() -> None:
    run = sample_run.sample_run()
    bad = dataclasses.replace(
        run.boots[-1], samples=(Sample("m", "f", 0, float("nan"), False, False),)
    )
    got = document(dataclasses.replace(run, boots=(bad,)))
    assert got["boots"][0]["samples"][0]["value"] is None


@pytest.mark.parametrize(
    "make",
    [
        sample_run.one_arm,
        sample_run.only_checks,
        sample_run.interrupted,
        sample_run.before_the_first_boot,
    ],
)
def test_an_incomplete_run_is_still_a_document(make: Callable[[], StoredRun]) -> None:
    run = make()
    got = document(run)
    assert got["run"]["finished"] == run.finished
    assert len(got["comparisons"]) == len(run.arms) - 1
    assert len(got["boots"]) == len(run.boots)


def test_a_program_can_read_the_ledger_and_the_table_of_levels() -> None:
    got = document(review_run.review_run())
    (ledger,) = got["ledgers"]
    assert [column["label"] for column in ledger["columns"]] == ["v1", "v2"]
    rows = {row["demand"]["id"]: row["entries"] for row in ledger["rows"]}
    assert [entry["standing"] for entry in rows["no-leak"]] == ["open", "met"]
    assert rows["no-leak"][0]["grounds"][1]["seen"] == review_run.LEAK
    assert got["operations"]["subjects"] == ["tmpfs", "DIRECT_IO"]
    assert got["operations"]["rows"][0]["cells"][2]["arm"] == "base"
    assert got["headlines"][0].startswith("demo: v2 meets 3 of 7 demands (v1: 2 of 8)")
    assert document(sample_run.sample_run())["operations"] is None
