# SPDX-License-Identifier: GPL-2.0-or-later
"""The page that a developer reads; and what is refused before a guest is booted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patchlab import config
from patchlab.errors import MissingTool, UsageError
from patchlab.explain import differences
from patchlab.explain.counts import Profile, Tally
from patchlab.explain.explain import Explanation, drift, explain, wanted
from patchlab.explain.functions import Change
from patchlab.guests import kvm
from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.record import Clock
from patchlab.report import explained, plain
from patchlab.verdict import MetricComparison
from patchlab.verdicts import compare
from tests.report.sample_run import BASE, CONTROL, sample_run

REPOSITORY = Path(__file__).parents[2]
METRIC = "write-1k"


def measured() -> MetricComparison:
    run = sample_run()
    return wanted(run, compare.compare(run, BASE, CONTROL), METRIC)


def profile(shift: float) -> Profile:
    """80 places, of which 30 move; ``shift`` is by how much in all."""
    places = {f"function_{n}": Tally(1000.0, 2.0) for n in range(80)}
    for n in range(30):
        places[f"function_{n}"] = Tally(1000.0 + shift / 30, 2.0)
    places["user space: python3.13"] = Tally(500.0, 0.0)
    events = {"FUSE requests answered": 1.0, "page faults": shift}
    return Profile(places, 80_500.0 + shift, events, 2, 12)


def explanation() -> Explanation:
    run = sample_run()
    images = (run.images[BASE], run.images[CONTROL])
    found = differences.find(
        images,
        (BASE, CONTROL),
        ("CONFIG_HZ=250\n", "CONFIG_HZ=250\n"),
        ({"text": 100, "data": 7}, {"text": 120, "data": 7}),
    )
    changes = (
        *(Change(f"never_run_{n:02}", 10, 20) for n in range(25)),
        Change("function_10", 0, 64),
        Change("evil\x1b]0;title\x07[bold]", 1, 2),
    )
    profiles = (profile(0), profile(60))
    notes = ("the agent is another than the run's",)
    return Explanation(run.id, (BASE, CONTROL), measured(), found, changes, profiles, notes)


def test_the_page_names_what_differs_and_where() -> None:
    text = explained.render(explanation())
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "write-1k in run 7: fuse-writable-mmap@control against base"
    assert "patches none fuse-writable-mmap@control, 1 patch:" in lines
    assert "fs/fuse/file.c" in lines
    assert "All 1 options of the config are the same." in lines
    assert "text, with its padding, bytes 100 120" in lines
    assert not any(line.startswith("data, bytes") for line in lines)
    assert "Functions: 26 changed, 1 added" in lines
    assert "function_10 added – 64 yes" in lines  # executed ones come first
    assert "… and 7 more functions, 0 of them executed" in lines
    assert "function_10 1,000.0 (2.00) 1,002.0 (2.00) +2.0 added" in lines
    assert "… and 61 more places, sum 60,500.0 60,520.0 +20.0" in lines
    assert "sum 80,500.0 80,560.0 +60.0" in lines
    assert "FUSE requests answered 1.000 1.000" in lines
    assert "· the agent is another than the run's" in lines
    assert max(map(len, text.splitlines())) <= plain.WIDTH
    assert "\x1b" not in text


def test_the_sum_stands_beside_the_clock_and_the_run() -> None:
    one = explanation()
    off = replace(one.profiles[1], clock=80_000.0)
    lines = explained.render(replace(one, profiles=(one.profiles[0], off))).splitlines()
    apart = next(line.split() for line in lines if line.strip().startswith("apart"))
    assert apart == ["apart", "±0.000", "%", "+0.700", "%"]
    assert any("The traced boots differ by +60.0, the run's by +" in line for line in lines)


def test_equal_kernels_have_no_changed_function() -> None:
    assert "No function differs." in explained.render(replace(explanation(), changes=()))


@pytest.mark.parametrize(
    ("value", "text"), [(12.5, "+12.5"), (-3.0, "−3.0"), (0.01, "±0.0"), (-1234.5, "−1,234.5")]
)
def test_signs(value: float, text: str) -> None:
    assert explained.signed(value) == text


def test_an_unknown_metric_lists_those_that_are_there() -> None:
    run = sample_run()
    with pytest.raises(UsageError, match="no metric 'write-2k' in run 7") as refused:
        wanted(run, compare.compare(run, BASE, CONTROL), "write-2k")
    assert "write-1k" in refused.value.hint


def test_a_metric_that_one_arm_lacks_is_refused_with_the_reason() -> None:
    run = sample_run()
    with pytest.raises(UsageError, match="dirty-msync has no change to explain: gone"):
        wanted(run, compare.compare(run, BASE, CONTROL), "dirty-msync")


def test_a_run_by_another_clock_is_refused() -> None:
    run = sample_run()
    wall = replace(run, clock=Clock.WALL)
    with pytest.raises(UsageError, match="timed by the clock wall"):
        wanted(wall, compare.compare(run, BASE, CONTROL), METRIC)


def test_what_is_not_as_in_the_run_is_said() -> None:
    run = sample_run()
    assert drift(replace(run, ground={}), "root")[0].startswith("the run did not note")
    ground = {"agent": "old", "guest root": "root", "QEMU": kvm.qemu_version()}
    assert drift(replace(run, ground=ground), "root") == ("the agent is another than the run's",)


def test_an_image_that_the_cache_lost_is_named_with_its_remedy(tmp_path: Path) -> None:
    run = sample_run()
    lab = config.load(REPOSITORY / "lab.toml")
    comparison = compare.compare(run, BASE, CONTROL)
    with pytest.raises(MissingTool, match="the image of base that run 7 booted") as lost:
        explain(run, comparison, METRIC, lab, Cache(tmp_path), Silent())
    assert "runner.py build 'base'" in lost.value.hint
