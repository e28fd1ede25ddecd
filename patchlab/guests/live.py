# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest for a person: booted like a check boot, ready to be logged into."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from patchlab import scratch
from patchlab.building import build
from patchlab.errors import LostInstrument
from patchlab.guests import command_line, machine, root
from patchlab.guests.guest import AgentRefused, GuestCrashed, GuestTimedOut
from patchlab.model import Lab, Variant
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.record import BootKind, Clock
from patchlab.runs.measure import patient, settings


@contextlib.contextmanager
def guest(
    variant: Variant,
    lab: Lab,
    cache: Cache,
    progress: Progress,
    *,
    features: Sequence[str],
    gdb: bool = False,
) -> Iterator[machine.Running]:
    """Build if needed, boot, prepare ``features`` (mounts the pmem devices), yield the guest.

    A feature that cannot be prepared is noted, not fatal: a person may want to see why.
    Raises LostInstrument when the guest did not come up, with the end of its console.
    """
    build.try_patches(variant, lab, cache, progress)
    image = build.build(variant, lab, cache, progress)
    guest_root = root.make(lab.machine, cache, progress)
    lab = patient(lab, image)
    seed, options = lab.sampling.seed, variant.options
    start = command_line.Start(image, BootKind.CHECK, Clock.TCG, seed, options, gdb=gdb)
    with scratch.folder("guest") as folder, contextlib.ExitStack() as up:
        with progress.step(f"boot {variant.name}"):
            try:
                running = up.enter_context(
                    machine.boot(start, guest_root, lab.machine, lab.limits, folder)
                )
            except (GuestCrashed, GuestTimedOut) as error:
                raise LostInstrument(f"{variant.name}: {error}\n{_tail(folder)}") from error
        for feature in features:
            try:
                running.guest.prepare(feature, settings(lab, start.seed), lab.limits.check)
            except AgentRefused as error:
                progress.note(f"{feature}: {error}")
        yield running


def _tail(folder: Path) -> str:
    log = folder / "console.log"
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.is_file() else ""
