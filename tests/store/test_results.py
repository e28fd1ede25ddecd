# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path

import pytest

from patchlab.errors import StoreError, UsageError
from patchlab.record import BootKind, BootRecord, CheckResult, Outcome, Sample, StoredRun
from patchlab.store import schema
from patchlab.store.results import Results
from patchlab.store.rows import Plan
from patchlab.verdicts import calibration
from tests.report import calibration_run, review_run, sample_run


def begin(results: Results, run: StoredRun) -> int:
    return results.begin_run(
        run.name, run.title, Plan.of(run), images=run.images, rules=run.rules, stages=run.stages
    )


def save(results: Results, run: StoredRun) -> int:
    run_id = begin(results, run)
    for boot in run.boots:
        results.save_boot(run_id, boot)
    results.finish_run(run_id, run.seconds)
    return run_id


def test_a_run_started_before_its_first_stage(tmp_path: Path) -> None:
    run = dataclasses.replace(sample_run.sample_run(), stages={"build": 3000.0, "review": 600.0})
    with Results.open(tmp_path / "results.db") as results:
        loaded = results.load_run(save(results, run))
    lasted = datetime.fromisoformat(loaded.finished) - datetime.fromisoformat(loaded.started)
    assert 3600 <= lasted.total_seconds() < 3700


def test_a_run_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    run = sample_run.sample_run()
    with Results.open(tmp_path / "deep" / "results.db") as results:
        run_id = save(results, run)
    with Results.open(tmp_path / "deep" / "results.db") as results:
        loaded = results.load_run(run_id)
    assert loaded.finished
    assert loaded == dataclasses.replace(
        run, id=run_id, started=loaded.started, finished=loaded.finished
    )
    assert loaded.images["base"].bzimage == Path("/cache/images/base/bzImage")


def test_a_review_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    run = review_run.review_run()
    with Results.open(tmp_path / "r.db") as results:
        loaded = results.load_run(save(results, run))
        plain = results.load_run(save(results, sample_run.sample_run()))
    assert (loaded.asked, loaded.rules, loaded.metrics) == (run.asked, run.rules, run.metrics)
    assert (plain.asked, plain.rules) == ((), ())


def test_a_file_of_the_first_schema_still_loads_and_takes_reviews(tmp_path: Path) -> None:
    path, run = tmp_path / "r.db", sample_run.sample_run()
    with Results.open(path) as results:
        run_id = save(results, run)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE rules")
        connection.execute("PRAGMA user_version = 1")
        plan = json.loads(connection.execute("SELECT plan FROM runs").fetchone()[0])
        del plan["asked"]
        for metric in plan["metrics"]:
            del metric["operation"], metric["subject"]
        connection.execute("UPDATE runs SET plan = ?", (json.dumps(plan),))
    with Results.open(path) as results:
        old = results.load_run(run_id)
        assert (old.metrics, old.boots, old.asked, old.rules) == (run.metrics, run.boots, (), ())
        reviewed = review_run.review_run()
        assert results.load_run(save(results, reviewed)).rules == reviewed.rules
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)


def test_a_file_of_the_second_schema_still_loads_and_its_runs_can_be_gone_on_with(
    tmp_path: Path,
) -> None:
    path, run = tmp_path / "r.db", sample_run.sample_run()
    with Results.open(path) as results:
        run_id = begin(results, run)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE sittings")
        connection.execute("PRAGMA user_version = 2")
        plan = json.loads(connection.execute("SELECT plan FROM runs").fetchone()[0])
        del plan["kinds"], plan["ground"]
        connection.execute("UPDATE runs SET plan = ?", (json.dumps(plan),))
    with Results.open(path) as results:
        old = results.load_run(run_id)
        assert (old.kinds, old.ground, old.seconds) == (tuple(BootKind), {}, 0.0)
        results.begin_sitting(run_id, 4.0)
        assert results.load_run(run_id).seconds == 4.0
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)


def test_the_seconds_of_a_killed_sitting_are_those_of_its_last_boot(tmp_path: Path) -> None:
    with Results.open(tmp_path / "r.db") as results:
        run_id = begin(results, dataclasses.replace(sample_run.sample_run(), stages={"build": 3.0}))
        first, stage = results.begin_sitting(run_id, 3.0), results.save_stage(run_id, "boots", 0.0)
        results.save_seconds(first, 13.0, stage, 10.0)
        results.save_seconds(first, 23.0, stage, 20.0)
        second, stage = results.begin_sitting(run_id, 1.0), results.save_stage(run_id, "boots", 0.0)
        results.save_seconds(second, 8.0, stage, 7.0)
        loaded = results.load_run(run_id)
    assert loaded.seconds == 31.0
    assert loaded.stages == {"build": 3.0, "boots": 27.0}


def test_a_run_is_begun_whole_or_not_at_all(tmp_path: Path) -> None:
    run = review_run.review_run()
    twice = (*run.rules, dataclasses.replace(run.rules[0], seen=None))  # type: ignore[arg-type]
    with Results.open(tmp_path / "r.db") as results:
        with pytest.raises(StoreError):
            begin(results, dataclasses.replace(run, rules=twice))
        assert results.runs() == []


# Each process opens a file that may not be there yet, begins a run and stores boots.
def test_many_processes_write_to_one_new_file_and_none_waits_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    program = f"""
from tests.report import sample_run
from tests.store import test_results
run = sample_run.sample_run()
with test_results.Results.open(test_results.Path({str(path)!r})) as results:
    run_id = test_results.begin(results, run)
    for boot in run.boots[:6]:
        results.save_boot(run_id, boot)
    results.finish_run(run_id, 1.0)
"""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    argv = [sys.executable, "-c", program]
    writers = [subprocess.Popen(argv, env=env) for _ in range(3)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    with Results.open(path) as results:
        runs = [results.load_run(line.id) for line in results.runs()]
    assert [run.boots for run in runs] == [sample_run.sample_run().boots[:6]] * 3


def test_what_was_planned_is_there_before_the_first_boot(tmp_path: Path) -> None:
    run = sample_run.sample_run()
    with Results.open(tmp_path / "r.db") as results:
        run_id = begin(results, run)
        loaded = results.load_run(run_id)
    assert (loaded.sampling, loaded.metrics, loaded.clock) == (run.sampling, run.metrics, run.clock)
    assert (loaded.finished, loaded.boots, loaded.seconds) == ("", (), 0.0)


def test_console_logs_are_compressed_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    log = "[    0.00] the same line again and again\n" * 20_000
    boot = dataclasses.replace(sample_run.boot("base", BootKind.CHECK), console=log)
    with Results.open(path) as results:
        run_id = begin(results, sample_run.sample_run())
        results.save_boot(run_id, boot)
        assert results.load_run(run_id).boots == (boot,)
    assert path.stat().st_size < len(log) / 4


def test_boots_saved_from_several_threads_are_all_there(tmp_path: Path) -> None:
    run = sample_run.sample_run()
    boots = [b for b in run.boots if b.kind is BootKind.BENCH]
    with Results.open(tmp_path / "r.db") as results:
        run_id = begin(results, run)
        threads = [
            threading.Thread(target=results.save_boot, args=(run_id, boot)) for boot in boots
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        loaded = results.load_run(run_id).boots

    def place(boot: BootRecord) -> tuple[int, int, int]:
        return (boot.block, boot.order, boot.attempt)

    assert sorted(loaded, key=place) == sorted(boots, key=place)


def test_two_open_results_write_to_one_file(tmp_path: Path) -> None:
    run = sample_run.sample_run()
    with Results.open(tmp_path / "r.db") as one, Results.open(tmp_path / "r.db") as two:
        first, second = begin(one, run), begin(two, run)
        one.save_boot(first, run.boots[0])
        two.save_boot(second, run.boots[1])
        assert one.load_run(second).boots == (run.boots[1],)
        assert two.load_run(first).boots == (run.boots[0],)


# The program kills itself between two boots, as a kill -9 or the end of memory would.
def test_a_killed_run_keeps_every_boot_that_ended(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    program = f"""
import os, signal
from tests.report import review_run, sample_run
from tests.store import test_results
run = sample_run.sample_run()
results = test_results.Results.open(test_results.Path({str(path)!r}))
run_id = test_results.begin(results, run)
results.save_boot(run_id, run.boots[0])
os.kill(os.getpid(), signal.SIGKILL)
"""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    with Results.open(path) as results:
        loaded = results.load_run(results.latest_run())
    assert loaded.finished == ""
    assert loaded.boots == (sample_run.sample_run().boots[0],)


def test_a_boot_is_saved_whole_or_not_at_all(tmp_path: Path) -> None:
    too_wide = Sample("m", "f", 1 << 70, 1.0, False, False)
    boot = sample_run.boot("base", BootKind.BENCH, 0)
    with Results.open(tmp_path / "r.db") as results:
        run_id = begin(results, sample_run.sample_run())
        with pytest.raises(StoreError):
            results.save_boot(run_id, dataclasses.replace(boot, samples=(too_wide,)))
        assert results.load_run(run_id).boots == ()


def test_what_a_guest_says_cannot_break_the_file(tmp_path: Path) -> None:
    seen = "half a pair \ud800, a zero \x00, an escape \x1b[2J"
    boot = dataclasses.replace(
        sample_run.boot("base", BootKind.CHECK),
        facts={"uname": seen},
        console=seen,
        checks=(CheckResult("B1", "f", Outcome.FAILED, "", seen, 0.0),),
        samples=(Sample("m", "f", 0, float("nan"), False, False),),
        seed=(1 << 90) + 1,
    )
    with Results.open(tmp_path / "r.db") as results:
        run_id = begin(results, sample_run.sample_run())
        results.save_boot(run_id, boot)
        (loaded,) = results.load_run(run_id).boots
    assert loaded.console == seen
    assert loaded.checks[0].seen == loaded.facts["uname"] == seen.replace("\ud800", "?")
    assert loaded.samples[0].value != loaded.samples[0].value
    assert loaded.seed == boot.seed


def test_what_a_calibration_added_comes_back_with_its_sample(tmp_path: Path) -> None:
    run = calibration_run.run(blocks=2)
    with Results.open(tmp_path / "r.db") as results:
        assert results.load_run(save(results, run)).boots == run.boots


def test_a_run_has_the_newest_calibration_of_its_clock_qemu_and_features(tmp_path: Path) -> None:
    run, made = sample_run.sample_run(), calibration_run.run(blocks=5)
    with Results.open(tmp_path / "r.db") as results:
        run_id = save(results, run)
        assert results.load_run(run_id).calibration is None
        found = calibration.summarise(results.load_run(save(results, made)))
        results.save_calibration(found)
        assert results.load_run(run_id).calibration == found
        newer = dataclasses.replace(found, run=begin(results, made))
        results.save_calibration(newer)
        results.save_calibration(newer)  # read again: one a run
        assert results.load_run(run_id).calibration == newer
        other = dataclasses.replace(newer, qemu="QEMU 10", run=begin(results, made))
        results.save_calibration(other)
        assert results.load_run(run_id).calibration == newer
        none = dataclasses.replace(run, features=("virtio_pmem",))
        assert results.load_run(begin(results, none)).calibration is None


def test_the_latest_run_of_a_name_and_with_arms(tmp_path: Path) -> None:
    run = sample_run.sample_run()
    with Results.open(tmp_path / "r.db") as results:
        with pytest.raises(UsageError) as none:
            results.latest_run()
        assert "runner.py run" in none.value.hint
        old, other = begin(results, run), begin(results, sample_run.one_arm())
        named = begin(results, dataclasses.replace(run, name="nightly"))
        assert results.latest_run() == named
        assert results.latest_run("main") == other
        assert results.latest_run("main", [sample_run.CONTROL]) == old
        with pytest.raises(UsageError, match="with no-such-arm") as error:
            results.latest_run(arms=["no-such-arm"])
        assert sample_run.CONTROL in error.value.hint
        with pytest.raises(UsageError, match="no run 99"):
            results.load_run(99)


def test_the_list_of_runs_has_the_newest_first(tmp_path: Path) -> None:
    run = sample_run.sample_run()
    with Results.open(tmp_path / "r.db") as results:
        save(results, run)
        begin(results, sample_run.one_arm())
        newest, oldest = results.runs()
    assert (oldest.arms, oldest.boots, oldest.seconds) == (run.arms, len(run.boots), run.seconds)
    assert (newest.arms, newest.boots, newest.finished) == (("base",), 0, "")


def test_the_seconds_of_a_resumed_stage_add_up(tmp_path: Path) -> None:
    with Results.open(tmp_path / "r.db") as results:
        run_id = begin(results, dataclasses.replace(sample_run.sample_run(), stages={}))
        for stage, seconds in (("boots", 10.0), ("report", 1.0), ("boots", 5.0)):
            results.save_stage(run_id, stage, seconds)
        stages = results.load_run(run_id).stages
    assert list(stages.items()) == [("boots", 15.0), ("report", 1.0)]


def test_a_file_of_a_newer_lab_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    Results.open(path).__exit__()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(StoreError, match="newer lab") as error:
        Results.open(path)
    assert "update the lab" in error.value.hint


def test_files_that_are_not_results_are_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be taken for one" * 20)
    with pytest.raises(StoreError, match=r"notes\.txt"):
        Results.open(text)
    assert text.read_text().startswith("not a database")
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(StoreError, match="bookmarks"):
        Results.open(other)
    with pytest.raises(StoreError):
        Results.open(tmp_path / "notes.txt" / "r.db")


def test_the_file_is_wal_and_refuses_boots_of_no_run(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with Results.open(path) as results, pytest.raises(StoreError, match="FOREIGN KEY"):
        results.save_boot(5, sample_run.boot("base", BootKind.CHECK))
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
