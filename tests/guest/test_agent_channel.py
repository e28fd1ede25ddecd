# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent as the host meets it: a process that reads and writes JSON lines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
AGENT = ROOT / "guest" / "agent.py"
FEATURE = "rough"

# An agent whose only feature misbehaves in every way that a kernel under test makes one.
ROUGH = f"""
import os, signal, sys, time
from pathlib import Path
sys.path[0] = {str(ROOT)!r}
from guest import agent, features
from guest.words import Bench, Check, CheckError, Feature, Metric, Skipped, Unsupported
import contextlib

def passes(context):
    print("stray output of a check")
    os.system("echo stray output of its child")
    return f"read {{sys.stdin.read()!r}}"

def fails(context): raise CheckError("x" * 100_000)
def raises(context): return {{}}["no such key"]
def skips(context): raise Skipped("no device")
def lacks(context): raise Unsupported("ENODEV")
def dies(context): os.kill(os.getpid(), signal.SIGBUS)

def hangs(context):
    if os.fork() == 0:
        Path(STATE_FOLDER, "orphan").write_text(str(os.getpid()))
        signal.pause()
    signal.pause()

def lingers(context):
    if os.fork() == 0:
        signal.pause()
    return "reported while a child of it lives"

@contextlib.contextmanager
def bench(context, rounds):
    yield Bench(lambda: deque(range(1000), maxlen=0), 1000)

@contextlib.contextmanager
def absent(context, rounds):
    raise Unsupported("mmap gives ENODEV")
    yield

from collections import deque
checks = tuple(Check(f.__name__, "s", "s", "e", f)
               for f in (passes, fails, raises, skips, lacks, dies, hangs, lingers))
metrics = (Metric("turns", "s", "turn", bench), Metric("absent", "s", "turn", absent))
def prepare(settings):
    print("stray output of prepare")
    return {{"size": str(len(settings["pmem"]))}}
features.FEATURES = {{"rough": Feature(checks, metrics, prepare)}}
agent.STATE = Path(STATE_FOLDER)
sys.exit(agent.main([]))
"""


def talk(lines: list[bytes], *argv: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-u", *(argv or (str(AGENT),))],
        input=b"".join(line + b"\n" for line in lines),
        capture_output=True,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def rough(state: Path, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    program = ROUGH.replace("STATE_FOLDER", repr(str(state)))
    file = state / "rough.py"
    file.write_text(program)
    lines = [
        json.dumps({"id": n, "feature": FEATURE, **r}).encode() for n, r in enumerate(requests)
    ]
    replies = talk(lines, str(file))
    assert [one["id"] for one in replies] == list(range(len(requests)))
    return replies


def check(state: Path, name: str, deadline: float = 30.0) -> dict[str, Any]:
    (reply,) = rough(state, {"op": "check", "check": name, "deadline": deadline})
    assert reply["ok"], reply
    result: dict[str, Any] = reply["result"]
    assert (result["id"], result["feature"], result["expected"]) == (name, FEATURE, "e")
    return result


def test_hello_gives_facts_as_text() -> None:
    (reply,) = talk([b'{"id": "a", "op": "hello"}'])
    assert reply["id"] == "a"
    assert reply["ok"] is True
    assert all(isinstance(one, str) for one in reply["facts"].values())
    assert set(reply["facts"]) == {
        "uname", "release", "cmdline", "clocksource", "cpu", "cpus", "python", "xfsprogs", "memory",
    }  # fmt: skip
    assert reply["facts"]["release"] in reply["facts"]["uname"]


def test_bad_requests_are_answered_and_survived() -> None:
    bad, listed, unknown, lacking, good = talk(
        [
            b"this is { no JSON",
            b"[1, 2]",
            b'{"id": 3, "op": "reboot"}',
            b'{"id": 4, "op": "check", "feature": "no-such-feature"}',
            b'{"id": 5, "op": "describe"}',
        ]
    )
    assert (bad["id"], bad["ok"]) == (None, False)
    assert bad["error"].startswith("JSONDecodeError: ")
    assert listed["error"] == "TypeError: a request is an object, not list"
    assert unknown["id"] == 3
    assert "unknown op 'reboot'; there are hello, describe, prepare" in unknown["error"]
    assert lacking["error"] == "KeyError: 'no-such-feature'"
    assert "Traceback" in lacking["traceback"]
    assert good["id"] == 5
    assert good["checks"]


def test_a_request_over_the_limit_is_refused_and_the_next_one_served() -> None:
    large = b'{"id": 1, "op": "hello", "fill": "' + b"x" * (3 << 20) + b'"}'
    refused, served = talk([large, b'{"id": 2, "op": "describe"}'])
    assert (refused["id"], refused["ok"]) == (None, False)
    assert "over 1048576 bytes" in refused["error"]
    assert (served["id"], served["ok"]) == (2, True)


def test_stray_output_stays_off_the_channel(tmp_path: Path) -> None:
    prepared, passed = rough(
        tmp_path,
        {"op": "prepare", "settings": {"pmem": [{}, {}], "seed": 1}},
        {"op": "check", "check": "passes", "deadline": 30.0},
    )
    assert prepared["facts"] == {"size": "2"}
    assert passed["result"]["outcome"] == "passed"
    assert passed["result"]["seen"] == "read ''"


def test_what_a_check_raises_becomes_its_outcome(tmp_path: Path) -> None:
    assert check(tmp_path, "skips")["outcome"] == "skipped"
    lacks = check(tmp_path, "lacks")
    assert (lacks["outcome"], lacks["seen"]) == ("unsupported", "ENODEV")
    raises = check(tmp_path, "raises")
    assert raises["outcome"] == "failed"
    assert "KeyError: 'no such key'" in raises["seen"]


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    failed = check(tmp_path, "fails")
    assert failed["outcome"] == "failed"
    assert failed["seen"].endswith("(100000 characters)")
    assert len(failed["seen"]) < 20_000


def test_a_check_that_dies_of_a_signal_has_failed(tmp_path: Path) -> None:
    died = check(tmp_path, "dies")
    assert (died["outcome"], died["seen"]) == ("failed", "the process died of SIGBUS")


def test_a_check_past_its_deadline_is_killed_with_its_children(tmp_path: Path) -> None:
    hung = check(tmp_path, "hangs", deadline=0.5)
    assert hung["outcome"] == "timed out"
    assert 0.5 <= hung["seconds"] < 5
    orphan = Path("/proc", (tmp_path / "orphan").read_text(), "stat")
    # Gone, or dead and not yet collected by init.
    assert not orphan.exists() or orphan.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_report_is_not_held_up_by_a_child_that_lives_on(tmp_path: Path) -> None:
    lingered = check(tmp_path, "lingers")
    assert lingered["outcome"] == "passed"
    assert lingered["seconds"] < 5


def test_samples_are_numbered_and_warm_ups_marked(tmp_path: Path) -> None:
    request = {"op": "measure", "metric": "turns", "samples": 3, "warmup": 2, "seed": 7}
    (reply,) = rough(tmp_path, request)
    samples = reply["samples"]
    assert [one["index"] for one in samples] == [0, 1, 2, 3, 4]
    assert [one["warmup"] for one in samples] == [True, True, False, False, False]
    assert all(0 < one["value"] < 10_000 for one in samples)
    assert all(isinstance(one["idle"], bool) for one in samples)


def test_an_absent_metric_says_why(tmp_path: Path) -> None:
    (reply,) = rough(tmp_path, {"op": "measure", "metric": "absent", "samples": 1, "seed": 1})
    assert reply["ok"] is True
    assert (reply["outcome"], reply["reason"]) == ("unsupported", "mmap gives ENODEV")


def test_a_reply_over_the_limit_is_an_error(tmp_path: Path) -> None:
    request = {"op": "measure", "metric": "turns", "samples": 20_000, "warmup": 0, "seed": 7}
    (reply,) = rough(tmp_path, request)
    assert reply["ok"] is False
    assert "the limit is 1048576" in reply["error"]


def test_power_off_needs_its_fifo(tmp_path: Path) -> None:
    (reply,) = rough(tmp_path, {"op": "poweroff"})
    assert reply["ok"] is False
    assert reply["error"].startswith("FileNotFoundError: ")
