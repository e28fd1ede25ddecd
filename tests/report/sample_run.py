# SPDX-License-Identifier: GPL-2.0-or-later
"""A made-up run with everything in it that a report must show. Seeded: always the same."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

from patchlab.model import AppliedPatch, Fit, Image, Sampling
from patchlab.record import (
    BootKind,
    BootRecord,
    CheckInfo,
    CheckResult,
    Clock,
    Finding,
    MetricInfo,
    MetricOutcome,
    Outcome,
    Polarity,
    Provenance,
    Sample,
    StoredRun,
)

BASE, CONTROL = "base", "fuse-writable-mmap@control"
FUSE, PMEM = "fuse-writable-mmap", "pmem"
BLOCKS = 5
HOSTILE_SEEN = "</td><script>alert('seen')</script> [bold]not markup[/bold] \x1b]0;title\x07"
HOSTILE_LINE = "[   12.25] </pre><img src=x onerror=alert(1)><script>alert('console')</script>"

_CHECKS = (
    ("B1", "a shared writable map of a FUSE file works"),
    ("B2", "a store shows in read(2), and a write(2) in the map"),
    ("B3", "msync sends WRITE with the cache flag, then FSYNC after every reply"),
    ("B4", "munmap and close flush; RELEASE comes after munmap"),
    ("B5", "while replies are withheld WritebackTmp is above 0 and Writeback is 0"),
    ("B11", "a touch past EOF is SIGBUS; the last page's tail is zero after growth"),
    ("B12", "a failed write gives EIO once an fd"),
    ("B16", "a read-only fd gives EACCES for mmap and for mprotect"),
)
_PMEM_CHECKS = (
    ("P1", "/sys/block/pmem0/queue/dax is 1"),
    ("P2", "the mount shows dax=always"),
    ("P3", "statx says STATX_ATTR_DAX"),
)
# id, feature, sentence, unit, primary, level in ns, change on control (None: unsupported)
_METRICS: tuple[tuple[str, str, str, str, bool, float, float | None], ...] = (
    ("fault-minor", FUSE, "first touch of a cached page, private", "page", True, 1745.4, 0.0),
    ("dirty-msync", FUSE, "dirty a page, then msync", "page", True, 78384.0, None),
    ("redirty", FUSE, "second touch of a written-back page", "page", True, 5210.0, None),
    ("write-1k", FUSE, "write(2) of 1 KiB", "call", False, 161100.0, 0.021),
    ("read-4k", FUSE, "read(2) of a cached page", "call", False, 4120.0, 0.0005),
    ("mmap-munmap", FUSE, "mmap and munmap of 16 pages", "round trip", False, 9811.0, None),
    ("getattr", FUSE, "a GETATTR round trip", "round trip", False, 98200.0, 0.0002),
    ("fork-shared", FUSE, "fork with a shared map", "call", False, 412_345.0, None),
    ("dax-first", PMEM, "first write touch, XFS dax=always", "page", True, 9028.5, -0.0041),
    ("dax-second", PMEM, "second touch", "page", False, 110.474, 0.0),
    ("dax-seq", PMEM, "sequential read through the map", "MiB", False, 1_204_000.0, 0.0),
    ("dax-sync", PMEM, "msync to virtio-pmem", "page", False, 7000.0, 0.0),
)


def sample_run() -> StoredRun:
    """Two arms, five blocks under icount; a splat, a boot that was lost and tried again."""
    random_ = random.Random(1)
    boots = [_check_boot(BASE), _check_boot(CONTROL)]
    for block in range(BLOCKS):
        arms = [BASE, CONTROL]
        random_.shuffle(arms)
        for order, arm in enumerate(arms):
            if (block, arm) == (2, BASE):
                boots.append(_lost(block, order))
            boots.append(_bench_boot(arm, block, order, random_))
    return StoredRun(
        id=7,
        name="main",
        title="FUSE shared writable maps: control against base",
        baseline=BASE,
        arms=(CONTROL, BASE),
        features=(FUSE, PMEM),
        sampling=Sampling(blocks=BLOCKS, seed=20260101, parallel=2, samples=12, warmup=2),
        clock=Clock.ICOUNT,
        started="2026-01-05T20:14:07+00:00",
        finished="2026-01-05T20:28:10+00:00",
        seconds=843.2,
        stages={"source": 14.2, "build base": 388.0, "build control": 31.5, "root": 22.8}
        | {"check boots": 61.0, "bench boots": 322.4, "report": 1.1},
        provenance=provenance(),
        images={arm: image(arm) for arm in (BASE, CONTROL)},
        boots=tuple(boots),
        checks=tuple(check_info(FUSE, *c) for c in _CHECKS)
        + tuple(check_info(PMEM, *c) for c in _PMEM_CHECKS),
        metrics=tuple(metric_info(*m[:5]) for m in _METRICS),
    )


def one_arm() -> StoredRun:
    run = sample_run()
    return dataclasses.replace(
        run, arms=(BASE,), boots=tuple(b for b in run.boots if b.variant == BASE)
    )


def only_checks() -> StoredRun:
    run = sample_run()
    boots = tuple(b for b in run.boots if b.kind is BootKind.CHECK)
    return dataclasses.replace(run, boots=boots, metrics=())


def interrupted() -> StoredRun:
    """Stopped after the first block: no check boot of the control, no end."""
    run = sample_run()
    boots = tuple(
        b for b in run.boots if b.block == 0 or (b.kind is BootKind.CHECK and b.variant == BASE)
    )
    return dataclasses.replace(run, boots=boots, finished="", seconds=0.0)


def before_the_first_boot() -> StoredRun:
    return dataclasses.replace(sample_run(), boots=(), images={}, finished="", seconds=0, stages={})


# ---------------------------------------------------------------- pieces


def check_info(feature: str, id: str, sentence: str) -> CheckInfo:
    # B12 fails on the control, where only what is gone is no news.
    on_it = "planted@v1 fw.plant=late" if id == "B12" else CONTROL
    red = on_it if feature == FUSE else ""
    return CheckInfo(id, feature, sentence, "mm/filemap.c, 2.6.26 changelog", red)


def metric_info(id: str, feature: str, sentence: str, unit: str, primary: bool) -> MetricInfo:
    clocks = (Clock.WALL,) if id == "dax-sync" else (Clock.ICOUNT, Clock.WALL)
    return MetricInfo(id, feature, sentence, unit, Polarity.LOWER, clocks, primary, 0.001, "median")


def provenance() -> Provenance:
    return Provenance(
        lab_version="0.1.0",
        lab_commit="3f1c2ab",
        command=("runner.py", "run"),
        host={"cpu": "AMD EPYC 7B13", "cores": "2", "memory": "24 GiB", "kernel": "6.1.0-38"},
        qemu="QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7+deb12u16)",
        kvm="refused: KVM internal error, emulation failure",
        clock=Clock.ICOUNT,
        root={"suite": "trixie", "key": "a81f20c4", "python": "3.13.5", "xfsprogs": "6.13.0"},
        machine={"memory": "1 GiB", "cpus": "2", "pmem0": "512 MiB xfs dax=always"},
        virtme="1.36",
    )


def image(variant: str) -> Image:
    patches: tuple[AppliedPatch, ...] = ()
    if variant != BASE:
        name = "0001-fuse-take-out-shared-writable-maps.patch"
        patch = AppliedPatch(FUSE, "control", name, "c0" * 32, Fit.OFFSET, ("fs/fuse/file.c",))
        patches = (patch,)
    return Image(
        key=f"key-of-{variant}",
        variant=variant,
        folder=Path("/cache/images") / variant,
        release="6.12.43",
        source_package="linux-source-6.12",
        source_version="6.12.43-1~bpo12+1",
        patches=patches,
        fragments=("base", "guest", "fuse", "pmem", "xfs", "hotpath"),
        toolchain={"gcc": "gcc (Debian 12.2.0-14+deb12u1) 12.2.0", "ld": "GNU ld 2.40"},
        bzimage_sha256="b1" * 32,
        code_sha256=f"code of {variant}",
        build_seconds=388.0 if variant == BASE else 31.5,
        build_steps=2265 if variant == BASE else 14,
    )


def boot(variant: str, kind: BootKind, block: int = -1, order: int = 0) -> BootRecord:
    """A clean boot with nothing in it."""
    bench = kind is BootKind.BENCH
    cpu = "max,-erms,-fsrm" if bench else "max"
    clock = ("-icount", "shift=1,sleep=off") if bench else ("-smp", "2")
    return BootRecord(
        variant=variant,
        image_key=f"key-of-{variant}",
        kind=kind,
        clock=Clock.ICOUNT if bench else Clock.TCG,
        block=block,
        order=order,
        attempt=1,
        outcome=Outcome.PASSED,
        reason="",
        seed=1000 + block,
        started="2026-01-05T20:22:00+00:00",
        seconds=31.0 + order,
        ready_seconds=11.5,
        argv=("qemu-system-x86_64", "-M", "q35", "-m", "1G,maxmem=4G", "-cpu", cpu, *clock),
        facts={"uname": "6.12.43", "clocksource": "tsc", "cmdline": "nokaslr norandmaps"},
        console="[    0.00] Linux version 6.12.43\n[   11.50] agent: ready\n",
    )


def _check_boot(variant: str) -> BootRecord:
    results = [_check_result(variant, FUSE, *c) for c in _CHECKS]
    results += [_check_result(variant, PMEM, *c) for c in _PMEM_CHECKS]
    record = dataclasses.replace(
        boot(variant, BootKind.CHECK), checks=tuple(results), order=int(variant == CONTROL)
    )
    if variant == BASE:
        return record
    text = (
        "WARNING: CPU: 1 PID: 311 at fs/fuse/file.c:1873 fuse_writepage_finish+0x1a2/0x1f0",
        "Call Trace:",
        " fuse_writepage_end+0x91/0x180",
        HOSTILE_LINE,
    )
    finding = Finding(
        "warn", f"{text[0][9:70]}", 3, "warn: fuse_writepage_finish fuse_writepage_end", text
    )
    log = record.console + "\n".join(text) + "\n[   60.10] \x1b[31mreboot: Power down\x1b[0m\n"
    return dataclasses.replace(
        record,
        outcome=Outcome.SPLAT,
        reason="WARNING at fs/fuse/file.c:1873",
        findings=(finding,),
        console=log,
    )


def _check_result(variant: str, feature: str, id: str, sentence: str) -> CheckResult:
    if variant == BASE or feature == PMEM:
        return CheckResult(id, feature, Outcome.PASSED, sentence, "as expected", 0.31)
    if id == "B16":
        return CheckResult(id, feature, Outcome.PASSED, "EACCES twice", "EACCES twice", 0.02)
    if id == "B12":
        return CheckResult(id, feature, Outcome.FAILED, "EIO once", HOSTILE_SEEN, 0.4)
    return CheckResult(
        id, feature, Outcome.UNSUPPORTED, sentence, "mmap(MAP_SHARED, PROT_WRITE): ENODEV", 0.01
    )


def _lost(block: int, order: int) -> BootRecord:
    return dataclasses.replace(
        boot(BASE, BootKind.BENCH, block, order),
        outcome=Outcome.LOST,
        reason="SSH never came: connection refused for 60 s",
        ready_seconds=0.0,
        console="",
    )


def _bench_boot(variant: str, block: int, order: int, chance: random.Random) -> BootRecord:
    samples: list[Sample] = []
    unmeasured: list[MetricOutcome] = []
    for id, feature, _, _, _, level, change in _METRICS:
        if id == "dax-sync":
            continue
        if variant == CONTROL and change is None:
            why = MetricOutcome(id, feature, Outcome.UNSUPPORTED, "mmap gives ENODEV")
            unmeasured.append(why)
            continue
        here = level * (1 + (change or 0.0) * (variant == CONTROL))
        # One metric is too noisy to be judged with five blocks.
        here *= 1 + chance.gauss(0, 0.02 if id == "write-1k" else 0.0002)
        samples += [
            Sample(id, feature, i, here * (1 + chance.gauss(0, 0.0001)), i < 2, False)
            for i in range(12)
        ]
    attempt = 2 if (block, variant) == (2, BASE) else 1
    return dataclasses.replace(
        boot(variant, BootKind.BENCH, block, order),
        attempt=attempt,
        samples=tuple(samples),
        unmeasured=tuple(unmeasured),
    )
