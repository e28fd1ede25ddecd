# SPDX-License-Identifier: GPL-2.0-or-later
"""load(): a lab's folder -> model.Lab, every name in it resolved."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import patchlab
from patchlab.config import fragments, sources
from patchlab.config.lines import KeyPath
from patchlab.config.machine import MIN_XFS, limits, machine, sampling, size
from patchlab.config.names import require_name, unknown
from patchlab.config.resolve import Place, variant
from patchlab.config.schema import BaseFile, LabFile
from patchlab.config.series import load_all
from patchlab.config.toml import Document, read, shown
from patchlab.errors import UsageError
from patchlab.model import Base, Lab, ReferenceConfig, RunPlan, Series, Variant
from patchlab.paths import Cache, default_cache

FEATURES = Path(patchlab.__file__).resolve().parent.parent / "guest" / "features"
_FEATURE = re.compile(rb"^FEATURE\b *[:=]", re.MULTILINE)
KNOWN_SPLATS = "known-splats.toml"  # beside the bases; console.py reads it


def load(path: Path, *, features: Path = FEATURES, cache: Cache | None = None) -> Lab:
    """Read lab.toml at ``path`` and everything it names.

    ``features`` is the folder with one module a feature. ``cache`` keeps the patches of arms
    that are paths, the user's own by default. Raises UsageError, headed by file
    and line, for the first thing that is wrong in any file of the lab.
    """
    document = read(path, LabFile)
    table = document.table
    folder = path.resolve().parent
    kernels = _folder(document, folder / table.kernels, ("kernels",))
    known_fragments = fragments.index(kernels)
    bases = load_bases(kernels, known_fragments)
    known_features = feature_names(features)
    series = load_all(_patch_folders(document, folder), bases, known_features)
    place = Place(folder, cache or default_cache())
    names = _Names(bases, series, known_fragments, known_features, place)
    runs = {name: _run(document, name, names) for name in table.run}
    if table.default not in runs:
        with document.at(("default",)):
            raise unknown("run", table.default, runs)
    return Lab(
        file=path.resolve(),
        folder=folder,
        kernels=kernels,
        default_run=table.default,
        base=table.run[table.default].base,
        bases=bases,
        series=series,
        runs=runs,
        machine=machine(document),
        sampling=sampling(document),
        limits=limits(table.limits),
    )


def load_bases(kernels: Path, known_fragments: Mapping[str, Path]) -> dict[str, Base]:
    """Every base in the folder ``kernels``, by name. Raises UsageError."""
    files = sorted(file for file in kernels.glob("*.toml") if file.name != KNOWN_SPLATS)
    return {file.stem: _base(file, known_fragments) for file in files}


@dataclass(frozen=True, slots=True)
class _Names:
    """Everything that a run may name."""

    bases: Mapping[str, Base]
    series: Mapping[str, Series]
    fragments: Collection[str]
    features: Collection[str]
    place: Place  # where the paths in arms start


def _folder(document: Document[LabFile], folder: Path, path: KeyPath) -> Path:
    if not folder.is_dir():
        hint = "paths start at the folder of lab.toml"
        raise document.error(path, f"no folder {shown(folder)}", hint=hint)
    return folder


def _patch_folders(document: Document[LabFile], folder: Path) -> list[Path]:
    names = document.table.patches
    _require_distinct(document, ("patches",), names)
    return [
        _folder(document, folder / name, ("patches", index)) for index, name in enumerate(names)
    ]


def feature_names(folder: Path) -> frozenset[str]:
    """The modules in ``folder`` that are features: they set FEATURE. The others help them."""
    files = [file for file in folder.glob("*.py") if not file.name.startswith("_")]
    return frozenset(file.stem for file in files if _FEATURE.search(file.read_bytes()))


def _require_distinct(document: Document[LabFile], path: KeyPath, names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise document.error((*path, index), f"'{name}' comes twice", hint="name it once")


def _base(file: Path, known_fragments: Mapping[str, Path]) -> Base:
    document = read(file, BaseFile)
    table = document.table
    with document.at(()):
        require_name("base", file.stem)
    reference = table.reference
    return Base(
        name=file.stem,
        title=table.title,
        file=file,
        source=sources.source(document),
        fragments=sources.fragments(document, known_fragments),
        build_steps=table.build_steps,
        reference=(
            ReferenceConfig(reference.package, reference.path, reference.whole)
            if reference
            else None
        ),
        options=sources.options(document, known_fragments),
    )


def _run(document: Document[LabFile], name: str, names: _Names) -> RunPlan:
    table = document.table.run[name]
    with document.at(("run", name)):
        require_name("run", name)
    if table.base not in names.bases:
        with document.at(("run", name, "base")):
            raise unknown("base", table.base, names.bases)
    _require_distinct(document, ("run", name, "features"), table.features)
    for index, feature in enumerate(table.features):
        if feature not in names.features:
            with document.at(("run", name, "features", index)):
                raise unknown("feature", feature, names.features)
    _check_run_fragments(document, name, names)
    arms = _arms(document, name, names)
    return RunPlan(
        name=name,
        title=table.title,
        arms=arms,
        baseline=_baseline(document, name, names, arms),
        features=table.features,
        sensitivity=_sensitivity(document, name),
        disk=_disk(document, name),
    )


def _disk(document: Document[LabFile], name: str) -> int:
    """Bytes of the run's disk, 0 for none. Raises UsageError where XFS would not fit."""
    text = document.table.run[name].disk
    if text is None:
        return 0
    if size(text) < MIN_XFS:
        message = f"disk in [run.{name}]: {text} is too small for XFS"
        raise document.error(("run", name, "disk"), message, hint="300M or more")
    return size(text)


def _sensitivity(document: Document[LabFile], name: str) -> tuple[str, ...]:
    models = document.table.run[name].sensitivity
    _require_distinct(document, ("run", name, "sensitivity"), models)
    known = document.table.machine.models
    for index, model in enumerate(models):
        if model not in known:
            with document.at(("run", name, "sensitivity", index)):
                raise unknown("CPU model", model, known, where=" in [machine.models]")
    return models


def _check_run_fragments(document: Document[LabFile], name: str, names: _Names) -> None:
    """The arms would find these faults too, but at the wrong line."""
    table = document.table.run[name]
    _require_distinct(document, ("run", name, "fragments"), table.fragments)
    for index, fragment in enumerate(table.fragments):
        with document.at(("run", name, "fragments", index)):
            variant(names.bases, {}, names.fragments, "base", table.base, (fragment,))


def _arms(document: Document[LabFile], name: str, names: _Names) -> tuple[Variant, ...]:
    arms: dict[str, Variant] = {}
    for index, text in enumerate(document.table.run[name].arms):
        with document.at(("run", name, "arms", index)):
            arm = _variant(document, name, names, text)
            if arm.name in arms:
                raise UsageError(f"arm '{arm.name}' comes twice", hint="name it once")
            arms[arm.name] = arm
    return tuple(arms.values())


def _baseline(
    document: Document[LabFile], name: str, names: _Names, arms: tuple[Variant, ...]
) -> str:
    text = document.table.run[name].baseline
    with document.at(("run", name, "baseline")):
        baseline = _variant(document, name, names, text)
        known = [arm.name for arm in arms]
        if baseline.name not in known:
            there = ", ".join(known)
            message = f"the baseline '{baseline.name}' is not among the arms of run '{name}'"
            raise UsageError(message, hint=f"add it to the arms, or take one of: {there}")
        return baseline.name


def _variant(document: Document[LabFile], run: str, names: _Names, text: str) -> Variant:
    table = document.table.run[run]
    return variant(
        names.bases,
        names.series,
        names.fragments,
        text,
        table.base,
        table.fragments,
        names.place,
        document.table.machine.models,
    )
