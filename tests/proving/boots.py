# SPDX-License-Identifier: GPL-2.0-or-later
"""The base comes up, again and again."""

from __future__ import annotations

from patchlab import config
from patchlab.building import build
from patchlab.guests import command_line
from patchlab.record import BootRecord
from patchlab.runs import features
from patchlab.store import content
from tests.proving import evidence
from tests.proving.desk import BASE, RECIPE, Proving, agent_code, boot, machine_key, start
from tests.proving.evidence import Boot

BOOTS = 20


def boots(proving: Proving) -> list[str]:
    """The base boots BOOTS times in a row, with every check, and no boot is lost."""
    file = proving.evidence / "boots.json"
    checks = tuple(one for one in features.catalogue().checks if one.green == BASE)
    variant = config.find_variant(proving.lab, BASE)
    image_key = build.plan_key(variant, proving.lab, proving.cache)
    code = [
        agent_code(command_line.GUEST_CODE, one) for one in dict.fromkeys(c.feature for c in checks)
    ]
    key = content.digest(RECIPE, image_key, machine_key(proving.lab), *code)
    made = evidence.row(evidence.load(file, Boot), key)
    if len(made) < BOOTS:
        image = build.build(variant, proving.lab, proving.cache, proving.progress)
        for number in range(len(made) + 1, BOOTS + 1):
            title, name = f"boot {number} of {BOOTS}", f"boots-{number:02d}"
            record = boot(start(image, proving, number), checks, proving, name, title, 1)
            made.append(_of_a_row(key, number, record, proving.commit))
            evidence.store(file, "boots", made)
    evidence.write(file.with_suffix(".md"), evidence.boots_page(made, image_key))
    return [
        f"boot {one.number} of {BOOTS}: {evidence.line(f'{one.outcome}: {one.reason}')}"
        for one in made
        if not evidence.good(one)
    ]


def _of_a_row(key: str, number: int, record: BootRecord, commit: str) -> Boot:
    counts: dict[str, int] = {}
    for check in record.checks:
        counts[check.outcome] = counts.get(check.outcome, 0) + 1
    times = (record.ready_seconds, record.seconds)
    return Boot(key, number, record.outcome, record.reason, counts, *times, commit, record.started)
