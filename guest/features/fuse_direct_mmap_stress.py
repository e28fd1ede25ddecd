# SPDX-License-Identifier: GPL-2.0-or-later
"""FUSE direct mmap under kills, lies, lost memory and races: what must hold whatever happens."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections import Counter
from collections.abc import Iterator

from guest import faults, fuzz, health, mix, starved, victims
from guest.features.fuse_direct_mmap_rig import V1, V3
from guest.fuse import direct
from guest.hostile import Fuzzer
from guest.kills import ClientKills, points, rounds, server_round
from guest.victims import Victim
from guest.wire import Wire
from guest.words import Check, CheckError, Context, Unsupported

_CYCLES = 1000
_ROUNDS = 24  # of kills at each moment; a slow machine makes fewer
_STEPS = 5000
_EPOCHS, _EPOCH = 5, 8.0  # mounts at most, and seconds of each
_MIX = 120.0  # seconds after which no further one is made


@contextlib.contextmanager
def _watched(what: str, *, scan: bool = True) -> Iterator[list[str]]:
    """Afterwards nothing is left, nobody hangs, and the log is clean. Yields what to tell.

    Without ``scan`` what kmemleak would find is left to A32.
    """
    log = health.Log()
    leaks = health.Leaks()
    before = health.held()
    told: list[str] = []
    try:
        yield told
        health.require_none_stuck(what)
        health.require_same(before, what)
        if scan:
            told.append(leaks.require_none(what))
        log.require_clean(what)
    except CheckError as error:
        text = "\n".join((str(error), *told, *health.excerpt(log.lines())))
        raise CheckError(text) from None
    finally:
        log.close()


def honest_client(wire: Wire, what: str) -> None:
    """A client of an honest server maps, stores, loads and goes. Raises CheckError."""
    wire.regions.share = False
    with contextlib.closing(Victim(lambda: victims.once(str(wire.path)), [wire.device])) as client:
        served = wire.serve(client.ended, 20.0)
        if not served or client.status:
            raise CheckError(f"{what} an honest mapping fails: {client.said() or 'it hangs'}")


# ---------------------------------------------------------------- A23


def raced(context: Context) -> str:
    if not health.LOCKDEP.exists():
        raise Unsupported("the kernel has no lockdep")
    direct.wanted()
    if not health.lockdep_on():
        raise CheckError("lockdep had switched itself off before this check began")
    made: list[tuple[int, int]] = []
    limit = time.monotonic() + _MIX
    with _watched("the mix", scan=False) as told:
        while len(made) < _EPOCHS and (not made or time.monotonic() < limit):
            seed = f"{context.random.getrandbits(32)} {len(made)}"
            made.append(mix.epoch(context.scratch, seed, _EPOCH))
        if not health.lockdep_on():
            raise CheckError("lockdep has switched itself off")
        clients, kills = (sum(counts) for counts in zip(*made, strict=True))
        told.append(f"{len(made)} mounts, {clients} clients, {kills} kills; lockdep is silent")
    return "; ".join(told)


# ---------------------------------------------------------------- A29


def killed(context: Context) -> str:
    direct.wanted()
    random, mount, name = context.random, context.scratch / "kills", f"kills{os.getpid()}"
    with _watched("kills") as told:
        with Wire(mount) as wire:
            moments = points(wire.regions.ids)
            kills = ClientKills(wire, random)
            made = rounds(kills.round, moments, _ROUNDS, 60.0)
            told.append(
                f"{made} clients killed at each of {len(moments)} moments, late replies "
                f"{_tally(kills.late)}"
            )
            _cycle(wire)
        with Wire(None, name) as device:
            made = rounds(ClientKills(device, random).round, moments, _ROUNDS // 4, 20.0)
            told.append(f"{made} of a CUSE device")
        for where, count, seconds in ((mount, _ROUNDS // 2, 60.0), (None, _ROUNDS // 6, 20.0)):
            kill = functools.partial(server_round, where, name, random)
            made = rounds(kill, moments, count, seconds)
            told.append(f"{made} {'FUSE' if where else 'CUSE'} servers killed at each")
        told.append(f"{_CYCLES} cycles")
    return "; ".join(told)


def _cycle(wire: Wire) -> None:
    with contextlib.closing(
        Victim(lambda: victims.cycles(str(wire.path), _CYCLES), [wire.device], 0)
    ) as client:
        wire.regions.share = False
        wire.serve(lambda: client.ended() and not wire.ready(0), 300.0)
        if not client.ended() or client.status or wire.regions.open():
            raise CheckError(
                f"{_CYCLES} cycles: {client.said() if client.ended() else 'no end'}; "
                f"{wire.regions.open()} mappings without an end"
            )


def _tally(counts: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


# ---------------------------------------------------------------- A30


def lied_to(context: Context) -> str:
    direct.wanted()
    seed = int(context.settings.get("fuzz_seed", context.random.getrandbits(32)))
    count = int(context.settings.get("fuzz_steps", _STEPS))
    with _watched(f"hostile replies (seed {seed})") as told:
        fuzzer = Fuzzer(context.scratch, seed)
        try:
            fuzzer.run(fuzz.steps(seed, count))
        finally:
            told.append(_story(fuzzer))
        with Wire(context.scratch / "honest") as wire:
            honest_client(wire, "after hostile replies")
    return f"seed {seed}: {'; '.join(told)}"


def _story(fuzzer: Fuzzer) -> str:
    return (
        f"{sum(fuzzer.counts.values())} steps: {_tally(fuzzer.counts)}; write(2) gave "
        f"{_tally(fuzzer.answers)}; {fuzzer.mounts} mounts, {fuzzer.clients_made} clients"
    )


# ---------------------------------------------------------------- A31, A32


def starved_of_memory(context: Context) -> str:
    faults.wanted()
    direct.wanted()
    with _watched("faults") as told:
        with Wire(context.scratch / "starved") as wire, faults.injectors() as names:
            honest_client(wire, "before any fault")
            for tally in starved.starve(wire, 200.0):
                told.append(str(tally))
        with Wire(context.scratch / "honest") as wire:
            honest_client(wire, "after the faults")
        told.append(f"injectors: {', '.join(names)}")
    return "; ".join(told)


def whole_boot(_context: Context) -> str:
    if not health.KMEMLEAK.exists():
        raise Unsupported("the kernel has no kmemleak")
    log = health.Log(whole=True)
    with contextlib.closing(log):
        lines = log.lines()
    if found := health.excerpt(lines):
        raise CheckError("\n".join(found))
    leaks = health.scanned()
    if leaks:
        raise CheckError(f"{len(leaks)} leaks:\n" + "\n".join([*leaks.values()][:3]))
    return f"{len(lines)} lines of the log without a report; kmemleak finds nothing"


_PLANTED = f"{V3} + planted-fuse-direct-mmap@v3"
_DEBUG = "config:debug"
_ISSUE = "the lab's own demand: nothing is left behind, nothing hangs, the log stays clean"

CHECKS = (
    Check(
        "A23",
        "A mix of everything, with kills, on two CPUs leaves lockdep silent",
        "series.md, A23; Documentation/locking/lockdep-design.rst",
        "no report in the kernel's log, and lockdep still on",
        raced,
        red=f"{_PLANTED} + {_DEBUG} fuse.plant=lock-order; "
        f"{_PLANTED} + {_DEBUG} fuse.plant=sleep-atomic",
        green=f"{V3} + {_DEBUG}",
        patience=8,
    ),
    Check(
        "A29",
        "A SIGKILL of client or server at every message, and 1,000 cycles, leave nothing behind",
        _ISSUE,
        "no fd, shmem page or inode, waiting request, connection, stuck process or leak; every "
        "answered MMAP has one end",
        killed,
        red=f"{V1}; {_PLANTED} fuse.plant=kept-region; {_PLANTED} fuse.plant=lost-munmap",
        green=V3,
        patience=20,
    ),
    Check(
        "A30",
        "A server that lies cannot crash or wedge the kernel",
        _ISSUE,
        "thousands of hostile replies from a seed: nothing hangs or leaks, clean log, and an "
        "honest server works afterwards",
        lied_to,
        red=f"{V1}; {_PLANTED} fuse.plant=store-keeps; {_PLANTED} fuse.plant=taken-twice",
        green=V3,
        patience=20,
    ),
    Check(
        "A31",
        "An allocation or copy that fails anywhere on the way of a mapping leaks nothing",
        "Documentation/fault-injection/fault-injection.rst, fail-nth",
        "for N = 1, 2, 3 … until none is reached: no leak, no report, and the next mapping works",
        starved_of_memory,
        red=f"{_PLANTED} + {_DEBUG} fuse.plant=leak-on-error",
        green=f"{V3} + {_DEBUG}",
        patience=15,
    ),
    Check(
        "A32",
        "After all checks the kernel's log is clean, and kmemleak finds nothing",
        _ISSUE,
        "no report since the boot, no unreferenced object",
        whole_boot,
        red=f"{_PLANTED} + {_DEBUG} fuse.plant=kmalloc-leak",
        green=f"{V3} + {_DEBUG}",
        patience=4,
    ),
)
