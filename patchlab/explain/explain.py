# SPDX-License-Identifier: GPL-2.0-or-later
"""Two arms of a stored run and one metric -> an explanation: images read, two guests booted."""

from __future__ import annotations

import mmap
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from patchlab import proc, sandbox
from patchlab.config import names
from patchlab.errors import LostInstrument, MissingTool, UsageError
from patchlab.explain import counts, differences, functions, symbols, trace
from patchlab.explain.counts import Profile
from patchlab.explain.differences import Differences
from patchlab.explain.functions import Change
from patchlab.explain.symbols import Symbols
from patchlab.guests import kvm, machine, root
from patchlab.model import Image, Lab
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.record import BootKind, Clock, StoredRun
from patchlab.store import content
from patchlab.verdict import Comparison, MetricComparison
from patchlab.verdicts import levels

_DISASSEMBLE = 1800.0  # seconds


@dataclass(frozen=True, slots=True)
class Explanation:
    run: int
    arms: tuple[str, str]
    measured: MetricComparison
    differences: Differences
    changes: tuple[Change, ...]
    profiles: tuple[Profile, Profile]
    drift: tuple[str, ...]  # what the traced boots had and the run's had not


def wanted(stored: StoredRun, comparison: Comparison, metric: str) -> MetricComparison:
    """The metric to explain. UsageError when this run has no change of it in instructions."""
    known = {one.metric.id: one for one in comparison.metrics}
    if metric not in known:
        raise names.unknown("metric", metric, known, where=f" in run {stored.id}")
    found = known[metric]
    if stored.clock is not Clock.ICOUNT:
        raise UsageError(
            f"run {stored.id} was timed by the clock {stored.clock}",
            hint="only a run by the clock icount counts instructions, which can be told apart",
        )
    if found.change is None:
        raise UsageError(
            f"{metric} has no change to explain: {found.verdict}{': ' if found.reason else ''}"
            f"{found.reason}",
            hint=f"runner.py compare '{comparison.baseline}' '{comparison.candidate}' shows those "
            "that have",
        )
    return found


def explain(
    stored: StoredRun,
    comparison: Comparison,
    metric: str,
    lab: Lab,
    cache: Cache,
    progress: Progress,
) -> Explanation:
    """Some two minutes: reads both images, boots each arm once. Errors are LabErrors."""
    measured = wanted(stored, comparison, metric)
    arms = (comparison.baseline, comparison.candidate)
    images = (_image(stored, arms[0], cache), _image(stored, arms[1], cache))
    one, other = (read(image) for image in images)
    with progress.step("which functions changed"):
        changes = changed((images[0], one), (images[1], other))
    found = differences.find(
        images,
        arms,
        (images[0].config.read_text(), images[1].config.read_text()),
        (sizes(images[0], one), sizes(images[1], other)),
    )
    guest_root = root.make(lab.machine, cache, progress)
    profiles = []
    for arm, image, table in zip(arms, images, (one, other), strict=True):
        order = trace.Order(arm, image, measured.metric, stored.sampling, _seed(stored, arms))
        with progress.step(f"traced boot of {arm}"):
            traced = trace.trace(order, guest_root, lab)
        profiles.append(counts.profile(traced, table, measured.metric.statistic))
    both = (profiles[0], profiles[1])
    drifted = drift(stored, guest_root.key)
    return Explanation(stored.id, arms, measured, found, changes, both, drifted)


def _image(stored: StoredRun, arm: str, cache: Cache) -> Image:
    """The image that the run booted, kept from gc. MissingTool when the cache lost it."""
    image = stored.images[arm]
    folder = content.use(cache.room("images"), image.key)
    if folder is None:
        raise MissingTool(
            f"the image of {arm} that run {stored.id} booted ({image.key}) is not in the cache",
            hint=f"runner.py build '{arm}' makes it again if its source and tools are the same; "
            "else make a new run",
        )
    image = replace(image, folder=folder)
    for file in (image.vmlinux, image.config):
        if not file.is_file():
            raise MissingTool(
                f"the image of {arm} has no {file.name}",
                hint="name it in the base's TOML, and make a new run",
            )
    return image


def drift(stored: StoredRun, root_key: str) -> tuple[str, ...]:
    """What else than chance may set the traced boots apart from the stored ones."""
    if not stored.ground:
        return ("the run did not note which agent, guest root and QEMU its boots had",)
    now = {
        "agent": machine.agent_digest(),
        "guest root": root_key,
        "QEMU": kvm.qemu_version(),
    }
    return tuple(
        f"the {what} is another than the run's"
        for what, value in now.items()
        if stored.ground.get(what) != value
    )


def _seed(stored: StoredRun, arms: tuple[str, str]) -> int:
    """The draw of the first block in which both were measured."""
    boots = [b for b in levels.settled(stored.boots) if b.kind is BootKind.BENCH and b.samples]
    seeds = [{b.block: b.seed for b in boots if b.variant == arm} for arm in arms]
    shared = sorted(seeds[0].keys() & seeds[1].keys())
    return seeds[0][shared[0]] if shared else stored.sampling.seed


# ---------------------------------------------------------------- images


def read(image: Image) -> Symbols:
    with image.vmlinux.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return symbols.read(memoryview(mapped), str(image.vmlinux))


def sizes(image: Image, table: Symbols) -> Mapping[str, int]:
    code = sum(symbol.size for symbol in table.functions)
    return {"functions": code, **table.sizes(), "bzImage": image.bzimage.stat().st_size}


def changed(before: tuple[Image, Symbols], after: tuple[Image, Symbols]) -> tuple[Change, ...]:
    """Functions added, removed or changed; none for equal kernels."""
    if before[0].code_sha256 == after[0].code_sha256:
        return ()
    some = functions.suspects(before[1], after[1])
    hashed = []
    for image, table in (before, after):
        with _disassembled(image.vmlinux) as lines:
            hashed.append(functions.hashes(lines, table, some))
    return functions.changes(hashed[0], hashed[1])


@contextmanager
def _disassembled(vmlinux: Path) -> Iterator[Iterator[str]]:
    """The lines of objdump, in the box: the file comes out of an untrusted build."""
    argv = sandbox.bubblewrap(
        ["objdump", "--disassemble", "--no-show-raw-insn", "--wide", str(vmlinux)],
        cwd=Path("/"),
        read=[vmlinux],
    )
    with proc.spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        timer = threading.Timer(_DISASSEMBLE, process.kill)
        timer.daemon = True
        timer.start()
        try:
            with closing(process.stdout) as output:
                yield (line.decode("utf-8", "replace") for line in output)
                if process.wait() != 0:
                    raise LostInstrument(f"objdump {vmlinux}: exit {process.returncode}")
        finally:
            timer.cancel()
