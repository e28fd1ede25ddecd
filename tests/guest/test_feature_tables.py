# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent says of its features fits the host's types."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guest.features import FEATURES
from patchlab.record import CheckInfo, Clock, MetricInfo, Polarity

_DIRECT = {f"A{n}" for n in range(1, 29) if n != 23}
AGENT = Path(__file__).resolve().parents[2] / "guest" / "agent.py"


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    # From elsewhere and without site packages: nothing but the library may be needed.
    argv = [sys.executable, "-I", str(AGENT), "--describe"]
    folder = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(argv, capture_output=True, check=True, timeout=30, cwd=folder)
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return found


def test_checks_have_the_fields_of_check_info(described: dict[str, list[dict[str, Any]]]) -> None:
    names = {one.name for one in dataclasses.fields(CheckInfo)}
    for one in described["checks"]:
        assert set(one) == names
        assert one.pop("patience") > 0
        assert all(isinstance(value, str) for value in one.values())
        assert one["sentence"] and one["source"], one["id"]


def test_metrics_have_the_fields_of_metric_info(described: dict[str, list[dict[str, Any]]]) -> None:
    names = {one.name for one in dataclasses.fields(MetricInfo)}
    for one in described["metrics"]:
        assert set(one) == names
        assert Polarity(one["polarity"]) is Polarity.LOWER
        # A throttled writer sleeps, msync(2) of pmem waits for the host: no instructions.
        idle = "throttled" in one["id"] or ("msync" in one["id"] and one["feature"] == "map_direct")
        wanted = [Clock.WALL] if idle else [Clock.ICOUNT, Clock.WALL]
        assert [Clock(clock) for clock in one["clocks"]] == wanted
        assert one["statistic"] in ("median", "minimum")
        assert 0 < one["margin"] < 0.1


def test_the_first_issue_has_its_checks(described: dict[str, list[dict[str, Any]]]) -> None:
    first_features = ("fuse_writable_mmap", "virtio_pmem")
    ids = [one["id"] for one in described["checks"] if one["feature"] in first_features]
    assert ids == [*(f"B{number}" for number in range(1, 24)), "P1", "P2", "P3", "P4"]
    (first,) = [one for one in described["checks"] if one["id"] == "B1"]
    assert first["red"] == "fuse-writable-mmap@control"


def test_direct_mmap_has_every_check_of_its_design() -> None:
    ids = [one.id for one in FEATURES["fuse_direct_mmap"].checks]
    # A23, a clean lockdep, is what the debug kernel says of all of them.
    assert [f"A{n}" for n in range(1, 29) if n != 23] == [one for one in ids if one in _DIRECT]
    assert ids == sorted(ids, key=lambda one: int(one[1:]))


def test_ids_are_unique_over_all_features(described: dict[str, list[dict[str, Any]]]) -> None:
    ids = [one["id"] for kind in described.values() for one in kind]
    assert len(ids) == len(set(ids))
    assert {one["feature"] for kind in described.values() for one in kind} == set(FEATURES)


def test_each_feature_has_a_few_primary_metrics() -> None:
    for feature in FEATURES.values():
        assert len(feature.metrics) >= 6
        assert 2 <= sum(one.primary for one in feature.metrics) <= 4


def test_every_check_says_what_it_expects() -> None:
    for feature in FEATURES.values():
        assert all(one.expected for one in feature.checks)
