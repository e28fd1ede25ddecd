# SPDX-License-Identifier: GPL-2.0-or-later
"""[machine], [sampling] and [limits] of lab.toml -> model values."""

from __future__ import annotations

import itertools

from patchlab.config.names import require_name
from patchlab.config.schema import LabFile, LimitsTable, PmemTable
from patchlab.config.toml import Document
from patchlab.model import Limits, Machine, PmemDevice, Sampling

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
MIN_MEMORY = 256 * 2**20
# mkfs.xfs refuses less since xfsprogs 5.19.
MIN_XFS = 300 * 2**20
# Linux adds device memory in subsections of 2 MiB (mm/memory_hotplug.c, check_pfn_span).
PMEM_GRAIN = 2 * 2**20
LOOKS = range(2, 11)  # one look is no plan; of many the last ones find little


def size(text: str) -> int:
    """Bytes of ``512M``; K, M, G and T are powers of 1024. The schema has checked the form."""
    return int(text[:-1]) * UNITS[text[-1]]


def machine(document: Document[LabFile]) -> Machine:
    """Raises UsageError for too little memory and for pmem devices that cannot work."""
    table = document.table.machine
    memory = size(table.memory)
    if memory < MIN_MEMORY:
        raise document.error(
            ("machine", "memory"),
            f"memory in [machine]: {table.memory} is too little for the guest's root and Python",
            hint="256M or more",
        )
    return Machine(
        memory=memory,
        cpus=table.cpus,
        bench_cpu=table.bench_cpu,
        check_cpu=table.check_cpu,
        pmem=_devices(document),
        root_suite=table.root.suite,
        root_packages=table.root.packages,
        models=_models(document),
    )


def _models(document: Document[LabFile]) -> tuple[tuple[str, str], ...]:
    models = document.table.machine.models
    for name in models:
        with document.at(("machine", "models", name)):
            require_name("CPU model", name)
    return tuple(models.items())


def sampling(document: Document[LabFile]) -> Sampling:
    """Raises UsageError for looks that are no plan. With looks the last one is the blocks."""
    table = document.table.sampling
    _check_looks(document)
    return Sampling(
        blocks=table.looks[-1] if table.looks else table.blocks,
        seed=table.seed,
        parallel=table.parallel,
        samples=table.samples,
        warmup=table.warmup,
        looks=table.looks,
    )


def _check_looks(document: Document[LabFile]) -> None:
    looks = document.table.sampling.looks
    where = ("sampling", "looks")
    if looks and len(looks) not in LOOKS:
        message = f"looks in [sampling]: {len(looks)} of them"
        hint = f"{LOOKS.start} to {LOOKS.stop - 1} looks; without them, blocks says how many"
        raise document.error(where, message, hint=hint)
    for index, (before, after) in enumerate(itertools.pairwise(looks), start=1):
        if after <= before:
            message = f"looks in [sampling]: {after} does not come after {before}"
            raise document.error((*where, index), message, hint="let them rise, as in [5, 10, 15]")


def limits(table: LimitsTable) -> Limits:
    return Limits(
        boot=table.boot,
        check=table.check,
        measure=table.measure,
        poweroff=table.poweroff,
        build=table.build,
    )


def _devices(document: Document[LabFile]) -> tuple[PmemDevice, ...]:
    tables = document.table.machine.pmem
    names = [table.name for table in tables]
    for index, name in enumerate(names):
        if name in names[:index]:
            message = f"two pmem devices are named '{name}'"
            raise document.error(
                ("machine", "pmem", index, "name"), message, hint="give each its own name"
            )
    return tuple(_device(document, index, table) for index, table in enumerate(tables))


def _device(document: Document[LabFile], index: int, table: PmemTable) -> PmemDevice:
    size_bytes = size(table.size)
    path = ("machine", "pmem", index, "size")
    if table.filesystem == "xfs" and size_bytes < MIN_XFS:
        message = f"size in [[machine.pmem]]: {table.size} is too small for XFS"
        raise document.error(path, message, hint="300M or more")
    if size_bytes % PMEM_GRAIN:
        message = f"size in [[machine.pmem]]: {table.size} is not a multiple of 2M"
        raise document.error(path, message, hint="Linux maps pmem in pieces of 2M")
    return PmemDevice(
        name=table.name,
        size=size_bytes,
        filesystem=table.filesystem,
        mkfs=table.mkfs,
        mount=table.mount,
    )
