# SPDX-License-Identifier: GPL-2.0-or-later
"""One bench boot of an arm in which QEMU counts the instructions of one metric's windows."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from patchlab import full, proc, scratch
from patchlab.errors import LostInstrument, MissingTool
from patchlab.explain import counts
from patchlab.explain.counts import Region, Trace, Window
from patchlab.guests import command_line, kvm, machine
from patchlab.guests.guest import AgentRefused, GuestCrashed, GuestTimedOut
from patchlab.model import Image, Lab, Limits, Root, Sampling, cpu_of, options_of
from patchlab.record import BootKind, Clock, MetricInfo
from patchlab.runs import measure

_SOURCE = Path(__file__).with_name("counter.c")
_VERSION = re.compile(r"version (\d+)\.(\d+)")
_COMPILE = 120.0  # seconds
# Counting makes QEMU slower, and every limit longer.
_SLOWER = 4
# An address and its count are 16 bytes; a window executes some 40,000 addresses.
_WINDOW = 2 << 20
_LIMIT = 64 * _WINDOW  # bytes of counts that are read


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be traced. ``seed`` is the draw of a stored block."""

    arm: str
    image: Image
    metric: MetricInfo
    sampling: Sampling
    seed: int


class _Window(msgspec.Struct):
    ns: int
    idle: bool
    faults: int
    major: int


class _Told(msgspec.Struct):
    """What guest/tracing.py says."""

    windows: list[_Window]
    skipped: int
    units: int
    maps: list[tuple[int, int, str]]


def trace(order: Order, root: Root, lab: Lab) -> Trace:
    """Boot the arm and count. LostInstrument when the guest or the counter did not get there."""
    need = order.sampling.samples + order.sampling.warmup + 8
    lab = measure.patient(replace(lab, limits=_longer(lab.limits)), order.image)
    with scratch.folder("try") as folder:
        full.require("the counts of instructions", folder, need * _WINDOW, full.TMP_REMEDY)
        plugin = compiled(folder)
        start = command_line.Start(
            order.image,
            BootKind.BENCH,
            Clock.ICOUNT,
            order.seed,
            options_of(order.arm),
            cpu=cpu_of(order.arm),
            plugin=plugin,
        )
        try:
            with machine.boot(start, root, lab.machine, lab.limits, folder) as running:
                told = _ask(order, running, lab)
                data = _read(running.folder / command_line.COUNTS)
                machine.await_exit(running, lab.limits.poweroff)
        except (GuestCrashed, GuestTimedOut, AgentRefused) as error:
            raise LostInstrument(
                f"{order.arm} could not be traced: {error}",
                hint=f"runner.py bench '{order.arm}' shows whether it can be timed at all",
            ) from error
    return _trace(told, data)


def _longer(limits: Limits) -> Limits:
    return replace(
        limits,
        **{
            name: _SLOWER * getattr(limits, name)
            for name in ("boot", "check", "measure", "poweroff")
        },
    )


def compiled(folder: Path) -> Path:
    """The counter, for this host's QEMU. MissingTool when that one has no known plugins."""
    plugin = folder / "counter.so"
    argv = [
        "gcc",
        "-O2",
        "-shared",
        "-fPIC",
        "-fvisibility=hidden",
        f"-DAPI={api(kvm.qemu_version())}",
    ]
    proc.run([*argv, str(_SOURCE), "-o", str(plugin)], deadline=_COMPILE)
    return plugin


def api(version: str) -> int:
    """The version of QEMU's plugin interface that counter.c is compiled for."""
    found = _VERSION.search(version)
    release = (int(found[1]), int(found[2])) if found else (0, 0)
    if (4, 2) <= release < (9, 0):
        return 1
    if release >= (9, 2):
        return 4
    raise MissingTool(
        f"{version}: counting instructions needs another version",
        hint="QEMU 4.2 to 8, or 9.2 and later",
    )


def _ask(order: Order, running: machine.Running, lab: Lab) -> _Told:
    guest, feature = running.guest, order.metric.feature
    guest.prepare(feature, measure.settings(lab, order.seed), lab.limits.check)
    return guest.trace(
        feature,
        order.metric.id,
        samples=order.sampling.samples,
        warmup=order.sampling.warmup,
        seed=order.seed,
        deadline=lab.limits.measure,
        kind=_Told,
    )


def _read(file: Path) -> bytes:
    with file.open("rb") as counted:
        data = counted.read(_LIMIT + 1)
    if len(data) > _LIMIT:
        raise LostInstrument(f"the counts of instructions are over {_LIMIT >> 20} MiB")
    return data


def _trace(told: _Told, data: bytes) -> Trace:
    regions = sorted(told.maps)
    return Trace(
        tuple(Window(w.ns, w.idle, w.faults, w.major) for w in told.windows),
        counts.parse(data),
        told.skipped,
        told.units,
        tuple(Region(*region) for region in regions),
    )
