# SPDX-License-Identifier: GPL-2.0-or-later
"""What the thirty kills of `make prove` are, and how they are told whether all is well."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from patchlab.record import Outcome
from patchlab.store.results import Results
from tests.proving import evidence, killing, kills
from tests.report import sample_run
from tests.store.test_results import begin


def test_thirty_kills_meet_every_stage_and_are_the_same_each_time() -> None:
    moments = kills.moments(kills.STAGES)
    assert len(moments) == 30
    assert list(dict.fromkeys(stage for stage, _ in moments)) == list(kills.STAGES)
    assert moments == kills.moments(kills.STAGES)
    assert len({seconds for _, seconds in moments}) == 30


def test_the_stage_is_the_last_one_that_was_said() -> None:
    said = "[ 0.1s] unpack linux-source: started\n[ 9.0s] build base: started\n"
    assert killing.stage_of("") == "start"
    assert killing.stage_of(said) == "base build"
    assert killing.stage_of(f"{said}[ 99.0s] build fuse@control: started\n") == "variant build"
    assert killing.stage_of("check boot of base: started\nbench boots: done in 2 s") == "report"


def test_lost_twice_and_missing_boots_are_told(tmp_path: Path) -> None:
    place = killing.Place(tmp_path, tmp_path / "lab" / "lab.toml")
    run = sample_run.sample_run()
    first = next(boot for boot in run.boots if boot.outcome is Outcome.PASSED)
    lost = dataclasses.replace(first, outcome=Outcome.LOST)
    with Results.open(place.results / "lab.sqlite") as results:
        run_id = begin(results, run)
        results.save_boot(run_id, lost)
        results.save_boot(run_id, dataclasses.replace(first, attempt=2))
        before = killing.stored(place)
        assert killing.bad_results(place, before) == []
        assert killing.incomplete(before, ["base"], 0) == []
        assert len(killing.incomplete(before, ["base"], 2)) == 2
        results.save_boot(run_id, dataclasses.replace(first, attempt=2))
    [twice, again] = killing.bad_results(place, before)
    assert twice == again and "is there twice" in twice
    assert "is gone" in killing.bad_results(place, [before[0]._replace(run=9)])[0]


def test_a_process_that_outlives_its_runner_is_found_and_ended(tmp_path: Path) -> None:
    program = "import subprocess, sys, time; subprocess.Popen(['sleep', '300']); time.sleep(300)"
    place = killing.Place(tmp_path, tmp_path / "lab.toml")
    # A stand-in for runner.py: it is started by the same function, in the same way.
    (tmp_path / "runner.py").write_text(program)
    with killing.guardian():
        ended = killing.start([sys.executable, str(tmp_path / "runner.py")], place, ("start", 0.5))
    assert ended.code == -9
    assert ended.left == ("sleep 300",)
    assert "sleep 300" not in killing.descendants().values()


def test_half_an_image_is_told(tmp_path: Path) -> None:
    place = killing.Place(tmp_path, tmp_path / "lab" / "lab.toml")
    half = place.cache / "images" / "k"
    half.mkdir(parents=True)
    (half / "bzImage").write_bytes(b"x")
    known: set[Path] = set()
    [said] = killing.not_whole(place, known)
    assert said.startswith("images/k: ") and known == set()


def test_the_page_has_a_row_for_each_kill_and_names_what_went_wrong() -> None:
    def kill(stage: str, *problems: str) -> evidence.Kill:
        return evidence.Kill(
            "k", stage, stage, 3.25, 2, 1, ("going on",), problems, "c", "2026-01-02"
        )

    page = evidence.kills_page([kill("source"), kill("report", "a `mount` is left"), kill("")])
    assert "kill -9 2 times" in page
    assert "| 1 | source | 3.2 s | 2 | 1 | going on |" in page
    assert "Not so in 1 places" in page
    assert "**Start 2:** `a 'mount' is left`" in page
