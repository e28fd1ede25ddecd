# SPDX-License-Identifier: GPL-2.0-or-later
"""A stored run and its comparisons as JSON. docs/json.md names every field."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from patchlab.record import BootRecord, StoredRun
from patchlab.report import words
from patchlab.reviews import claims, ledger
from patchlab.verdict import CheckComparison, Comparison
from patchlab.verdicts import compare, levels, operations

FORMAT = "patchlab-run/1"


def render(run: StoredRun, comparisons: Sequence[Comparison]) -> str:
    """The document, ending in a newline. A number that is not finite becomes null."""
    document = {
        "format": FORMAT,
        "headlines": words.headlines(run, comparisons),
        "run": _run(run),
        "ledgers": _builtins(ledger.ledgers(run)),
        "claims": _builtins(claims.tables(run)),
        "operations": _builtins(operations.table(run)),
        "levels": _builtins(levels.arms_table(run)),
        "comparisons": [_comparison(comparison) for comparison in comparisons],
        "boots": [_boot(boot) for boot in run.boots],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _run(run: StoredRun) -> dict[str, Any]:
    left_out = ("boots", "asked", "rules")  # the last two are in ledgers and claims
    return {key: value for key, value in _builtins(run).items() if key not in left_out}


def _comparison(comparison: Comparison) -> dict[str, Any]:
    document: dict[str, Any] = _builtins(comparison)
    document["checks"] = [_check(check) for check in comparison.checks]
    return document


def _check(check: CheckComparison) -> dict[str, Any]:
    document: dict[str, Any] = _builtins(check)
    return document | {"change": compare.change_word(check)}


def _boot(boot: BootRecord) -> dict[str, Any]:
    # Console logs are megabytes, and stay in the results file and in the HTML report.
    return {key: value for key, value in _builtins(boot).items() if key != "console"}


def _builtins(value: object) -> Any:
    return msgspec.to_builtins(value, enc_hook=_encode)


def _encode(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"no JSON for {type(value).__name__}")
