# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of the results database. ``PRAGMA user_version`` holds VERSION."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

# 1: the first. 2: the table "rules". 3: the table "sittings". 4: the tables "added" and
# "calibrations". An older file gets what it lacks when it is opened. What runs.plan had not from
# the start has a default (rows.Plan).
VERSION = 4

METADATA = MetaData()

# "plan" is JSON: all that is known before the first boot and never changes after.
RUNS = Table(
    "runs",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, index=True),
    Column("title", Text, nullable=False),
    Column("started", Text, nullable=False),
    Column("finished", Text, nullable=False, default=""),
    Column("seconds", Float, nullable=False, default=0.0),
    Column("plan", Text, nullable=False),
)

# What one process did of a run; a killed one wrote its seconds down after each boot.
SITTINGS = Table(
    "sittings",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("run", ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("started", Text, nullable=False),
    Column("seconds", Float, nullable=False),
)

STAGES = Table(
    "stages",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("run", ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("stage", Text, nullable=False),
    Column("seconds", Float, nullable=False),
)

IMAGES = Table(
    "images",
    METADATA,
    Column("run", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("variant", Text, primary_key=True),
    Column("image", Text, nullable=False),  # JSON
)

# What a run of the verb calibrate has shown; see patchlab/calibration.py.
CALIBRATIONS = Table(
    "calibrations",
    METADATA,
    Column("run", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("found", Text, nullable=False),  # JSON
)

# What static rules said of an arm's revisions.
RULES = Table(
    "rules",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("run", ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("variant", Text, nullable=False),
    Column("series", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("ruling", Text, nullable=False),
    Column("seen", Text, nullable=False),
    Column("remedy", Text, nullable=False),
)

BOOTS = Table(
    "boots",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("run", ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("variant", Text, nullable=False),
    Column("image_key", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("clock", Text, nullable=False),
    Column("block", Integer, nullable=False),
    Column("order", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("seed", Text, nullable=False),  # text: a seed may be wider than 64 bits
    Column("started", Text, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("ready_seconds", Float, nullable=False),
    Column("argv", Text, nullable=False),  # JSON
    Column("facts", Text, nullable=False),  # JSON
    Column("console", LargeBinary, nullable=False),  # zlib
)


def _of_boot(name: str, *columns: Column[object]) -> Table:
    boot = ForeignKey("boots.id", ondelete="CASCADE")
    return Table(
        name,
        METADATA,
        Column("id", Integer, primary_key=True),
        Column("boot", boot, nullable=False, index=True),
        *columns,
    )


def _text(name: str) -> Column[object]:
    return Column(name, Text, nullable=False)


CHECKS = _of_boot(
    "checks",
    _text("check"),
    _text("feature"),
    _text("outcome"),
    _text("expected"),
    _text("seen"),
    Column("seconds", Float, nullable=False),
)

SAMPLES = _of_boot(
    "samples",
    _text("metric"),
    _text("feature"),
    Column("index", Integer, nullable=False),
    Column("value", Float),  # NULL is NaN: SQLite has no other way to say it
    Column("warmup", Boolean, nullable=False),
    Column("idle", Boolean, nullable=False),
)

# What a calibration's slowdown added to a sample; a boot without one has no rows.
ADDED = _of_boot(
    "added",
    _text("metric"),
    _text("feature"),
    Column("index", Integer, nullable=False),
    Column("added", Float, nullable=False),
)

UNMEASURED = _of_boot(
    "unmeasured", _text("metric"), _text("feature"), _text("outcome"), _text("reason")
)

FINDINGS = _of_boot(
    "findings",
    _text("kind"),
    _text("title"),
    Column("line", Integer, nullable=False),
    _text("fingerprint"),
    _text("excerpt"),  # JSON
    _text("known"),
)
