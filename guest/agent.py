# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent: JSON lines on stdin and stdout, one reply for one request, in their order.

``agent.py --describe`` prints what there is to check and to measure; that needs neither root
nor a device, so the host asks it too.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

if not __package__:
    # Started as a file: the package is what this file lies in, and nothing in it may shadow
    # a module of the library.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from guest import child, facts, features, sampling
from guest.words import Check, CheckError, Context, Metric, Skipped, Unsupported

LIMIT = 1 << 20  # bytes, of a request and of a reply
_TEXT = 16 << 10  # characters, of each text in a reply
STATE = Path("/run/lab-state")

Reply = dict[str, Any]


class Agent:
    """State between requests: the settings that features were prepared with."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.settings: dict[str, Mapping[str, Any]] = {}
        self.ops: dict[str, Callable[[Mapping[str, Any]], Reply]] = {
            "hello": lambda _: {"facts": facts.gather()},
            "describe": lambda _: describe(),
            "prepare": self.prepare,
            "check": self.check,
            "measure": self.measure,
            "trace": self.trace,
            "poweroff": self.poweroff,
        }

    def reply(self, line: bytes) -> bytes:
        """The reply to one line, without its newline. Never raises."""
        number = None
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise TypeError(f"a request is an object, not {type(request).__name__}")
            number = request.get("id")
            op = request.get("op")
            if op not in self.ops:
                raise ValueError(f"unknown op {op!r}; there are {', '.join(self.ops)}")
            body = {"id": number, "ok": True, **self.ops[op](request)}
            data = json.dumps(body).encode()
            if len(data) > LIMIT:
                raise ValueError(f"the reply has {len(data)} bytes, the limit is {LIMIT}")
        except Exception as error:
            data = json.dumps({"id": number, **failure(error)}).encode()
        return data

    def prepare(self, request: Mapping[str, Any]) -> Reply:
        settings = request.get("settings", {})
        found = features.FEATURES[request["feature"]].prepare(settings)
        self.settings[request["feature"]] = settings
        return {"facts": found}

    def context(self, request: Mapping[str, Any], scratch: Path) -> Context:
        settings = self.settings.get(request["feature"], {})
        seed = request.get("seed", settings.get("seed", 0))
        what = request.get("check") or request.get("metric")
        return Context(scratch, Random(f"{seed} {what}"), settings)

    def check(self, request: Mapping[str, Any]) -> Reply:
        check = features.FEATURES[request["feature"]].check(request["check"])
        deadline = float(request["deadline"])
        with tempfile.TemporaryDirectory(prefix="check-", ignore_cleanup_errors=True) as name:
            folder = Path(name).resolve()
            context = self.context(request, folder)
            ended = child.run(lambda: judge(check, context), deadline)
            _sweep(folder)
        if ended.timed_out:
            outcome, seen = "timed out", f"no end after {deadline:.0f} s\n{ended.where}".rstrip()
        elif ended.error:
            outcome, seen = "failed", ended.error
        else:
            outcome, seen = ended.value
        result = {
            "id": check.id,
            "feature": request["feature"],
            "outcome": outcome,
            "expected": check.expected,
            "seen": clip(seen),
            "seconds": ended.seconds,
        }
        return {"result": result}

    def measure(self, request: Mapping[str, Any]) -> Reply:
        return self.sampled(request, take)

    def trace(self, request: Mapping[str, Any]) -> Reply:
        return self.sampled(request, follow)

    def sampled(self, request: Mapping[str, Any], take: Callable[..., Reply]) -> Reply:
        metric = features.FEATURES[request["feature"]].metric(request["metric"])
        samples, warmup = int(request["samples"]), int(request.get("warmup", 0))
        with tempfile.TemporaryDirectory(prefix="measure-", ignore_cleanup_errors=True) as name:
            folder = Path(name).resolve()
            context = self.context(request, folder)
            ended = child.run(
                lambda: take(metric, context, samples, warmup), request.get("deadline")
            )
            _sweep(folder)
        if ended.timed_out:
            raise TimeoutError(f"{metric.id}: no end in time\n{ended.where}".rstrip())
        if ended.error:
            raise RuntimeError(f"{metric.id}: {ended.error}")
        return dict(ended.value)

    def poweroff(self, _request: Mapping[str, Any]) -> Reply:
        # Without O_NONBLOCK it would hang where nobody reads.
        fifo = os.open(self.state / "poweroff", os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(fifo, b"\n")
        finally:
            os.close(fifo)
        return {}


def _sweep(folder: Path) -> None:
    """Unmount what a check or a metric left mounted below its folder."""
    # Not at the top: it brings the whole server with it, and a first reply needs none of that.
    from guest.fuse.client import sweep

    sweep(folder)


def judge(check: Check, context: Context) -> tuple[str, str]:
    """In the child: the outcome and what was seen. Other exceptions are child.run's."""
    try:
        return "passed", check.run(context)
    except CheckError as error:
        return "failed", str(error)
    except Unsupported as error:
        return "unsupported", str(error)
    except Skipped as error:
        return "skipped", str(error)


def take(metric: Metric, context: Context, samples: int, warmup: int) -> Reply:
    """In the child: the samples, or why there are none."""
    try:
        return {"samples": sampling.sample(metric, context, samples, warmup)}
    except Unsupported as error:
        return {"outcome": "unsupported", "reason": clip(str(error))}
    except Skipped as error:
        return {"outcome": "skipped", "reason": clip(str(error))}


def follow(metric: Metric, context: Context, samples: int, warmup: int) -> Reply:
    """In the child: the windows that the host counts; Unsupported and Skipped are errors here."""
    from guest import tracing  # not at the top: it would move the heap of every boot

    return {"trace": tracing.trace(metric, context, samples, warmup)}


def describe() -> Reply:
    """Every check and metric, with the fields of patchlab's CheckInfo and MetricInfo."""
    checks = [
        {
            "id": one.id,
            "feature": name,
            "sentence": one.sentence,
            "source": one.source,
            "red": one.red,
            "green": one.green,
            "patience": one.patience,
        }
        for name, feature in features.FEATURES.items()
        for one in feature.checks
    ]
    metrics = [
        {
            "id": one.id,
            "feature": name,
            "sentence": one.sentence,
            "unit": one.unit,
            "polarity": one.polarity,
            "clocks": list(one.clocks),
            "primary": one.primary,
            "margin": one.margin,
            "absolute_margin": one.absolute_margin,
            "wall_margin": one.wall_margin,
            "wall_absolute_margin": one.wall_absolute_margin,
            "statistic": one.statistic,
            "operation": one.operation,
            "subject": one.subject,
        }
        for name, feature in features.FEATURES.items()
        for one in feature.metrics
    ]
    return {"checks": checks, "metrics": metrics}


def failure(error: BaseException) -> Reply:
    trace = "".join(traceback.format_exception(error))
    return {
        "ok": False,
        "error": clip(f"{type(error).__name__}: {error}"),
        "traceback": clip(trace),
    }


def clip(text: str) -> str:
    return text if len(text) <= _TEXT else text[:_TEXT] + f" … ({len(text)} characters)"


def serve(requests: BinaryIO, replies: BinaryIO, agent: Agent) -> None:
    """Until the end of ``requests``."""
    while line := requests.readline(LIMIT + 1):
        if len(line) > LIMIT and not line.endswith(b"\n"):
            while rest := requests.readline(LIMIT):
                if rest.endswith(b"\n"):
                    break
            data = json.dumps({"id": None, **failure(ValueError(f"a request over {LIMIT} bytes"))})
            replies.write(data.encode() + b"\n")
        else:
            replies.write(agent.reply(line) + b"\n")
        replies.flush()


def main(arguments: list[str]) -> int:
    if arguments == ["--describe"]:
        print(json.dumps(describe()))
        return 0
    # Nobody but serve() may touch the channel: stray output goes to stderr, and a child that
    # reads stdin finds it empty.
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    serve(requests, replies, Agent(STATE))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
