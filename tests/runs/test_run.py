# SPDX-License-Identifier: GPL-2.0-or-later
"""Which stored run is gone on with, and what becomes of what a killed lab left of it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.record import StoredRun
from patchlab.runs import run, sitting
from patchlab.store.results import Results
from tests.report import sample_run
from tests.store.test_results import begin

GROUND = {"arms": "base", "agent": "one", "image of base": "k1"}
RUN = dataclasses.replace(sample_run.sample_run(), arms=("base", sample_run.CONTROL), ground=GROUND)


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[run.Place]:
    with Results.open(tmp_path / "lab.sqlite") as results:
        yield run.Place(Cache(tmp_path / "cache"), results, tmp_path, ())


def earlier(
    place: run.Place, *, resume: bool = True, ground: dict[str, str] = GROUND
) -> tuple[StoredRun | None, str]:
    notes = Notes()
    with contextlib.ExitStack() as stack:
        found = run.earlier(RUN.name, ground, place, notes, resume, stack)
    return found, "; ".join(notes.said)


def interrupted(place: run.Place, stored: StoredRun = RUN) -> int:
    run_id = begin(place.results, stored)
    place.results.save_boot(run_id, stored.boots[0])
    return run_id


def test_the_newest_interrupted_run_of_that_name_is_gone_on_with(place: run.Place) -> None:
    assert earlier(place) == (None, "")
    interrupted(place)
    newest = interrupted(place)
    interrupted(place, dataclasses.replace(RUN, name="other"))
    found, said = earlier(place)
    assert found is not None and found.id == newest
    assert found.boots == RUN.boots[:1]
    assert said == f"going on with run {newest} (1 of 12 boots)"


def test_another_ground_is_named_and_a_new_run_is_begun(place: run.Place) -> None:
    old = interrupted(place)
    found, said = earlier(place, ground=GROUND | {"image of base": "k2", "agent": "two"})
    assert found is None
    assert said == (
        f"run {old} cannot be gone on with: agent: one then, two now; "
        "image of base: k1 then, k2 now"
    )


def test_a_plain_run_says_what_resume_would_have_done(place: run.Place) -> None:
    old = interrupted(place)
    assert earlier(place, resume=False) == (
        None,
        f"--resume would have gone on with run {old} (1 of 12 boots)",
    )
    assert earlier(place, resume=False, ground=GROUND | {"agent": "two"}) == (None, "")


def test_a_run_that_another_process_makes_is_left_to_it(place: run.Place) -> None:
    old = interrupted(place)
    with sitting.taken(place.folder, old):
        found, said = earlier(place)
    assert (found, said) == (None, f"run {old} is going on in another process")
    assert earlier(place)[0] is not None


def test_a_run_that_was_killed_before_its_report_was_whole_is_only_reported(
    place: run.Place,
) -> None:
    run_id = interrupted(place)
    place.results.finish_run(run_id, 9.0)
    found, said = earlier(place)
    assert found is not None and (found.id, found.seconds) == (run_id, 9.0)
    assert "going on with" in said
    assert earlier(place, resume=False)[0] is None
    run.page(place.folder, run_id).write_text("<html></html>")
    assert earlier(place) == (None, "")


def test_folders_of_boots_that_did_not_end_are_removed(place: run.Place) -> None:
    run_id = begin(place.results, RUN)
    check = next(boot for boot in RUN.boots if boot.block < 0 and boot.order == 0)
    place.results.save_boot(run_id, check)
    folder = place.folder / "run-0001"
    for name in ("check-000-1", "check-001-1", "bench-003-1"):
        (folder / name).mkdir(parents=True)
        (folder / name / "console.log").write_text("half a boot")
    with sitting.taken(place.folder, run_id):
        assert sitting.clean(place.folder, place.results) == ()
    gone = sitting.clean(place.folder, place.results)
    assert {path.name for path in gone} == {"check-001-1", "bench-003-1"}
    assert [path.name for path in folder.iterdir()] == ["check-000-1"]
