# SPDX-License-Identifier: GPL-2.0-or-later
"""What the series was posted for: a player maps the ring buffer of a CUSE sound device.

Run it in a guest: python3 /run/lab/guest/demos/sound.py [WAV]. It makes /dev/patchlab-dsp, lets
another process play a tone through it, and tells what passed between kernel and server. With
WAV (say, /root/tone.wav), what was played is written there. Exit codes: 0 played what was
rendered, 1 did not or could not, 10 the device cannot be mapped on this kernel.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import math
import mmap
import os
import sys
import time
import wave
from array import array
from collections import Counter
from functools import partial
from pathlib import Path

if not __package__:
    # Started as a file: the package is two folders up.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from guest.checking import error_of, forked
from guest.demos.card import BUFFER, FRAMES, PERIOD, PERIODS, RATE, SECONDS, TOLD, Card, place
from guest.fuse import client, direct
from guest.fuse.protocol import Op
from guest.fuse.server import Options
from guest.fuse.steering import Event, Service

NAME = "patchlab-dsp"
TONE = 12  # periods
PLAYED, DIFFERS, NOT_MAPPED = 0, 1, 10
_PATIENCE = 30.0  # seconds without a period


def tone() -> bytes:
    """A sweep from 440 Hz upwards, so that no two periods are alike; right is left, inverted."""
    samples, phase = array("h"), 0.0
    for frame in range(TONE * FRAMES):
        left = round(12_000 * math.sin(phase))
        samples.extend((left, -left))
        phase += 2 * math.pi * (440 + frame / 32) / RATE
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()


def player(device: Path, samples: bytes) -> None:
    """A process that knows nothing of FUSE: open, mmap, stores, and a write(2) now and then."""
    fd = os.open(device, os.O_RDWR)
    with mmap.mmap(fd, BUFFER) as buffer:
        for number in range(TONE):
            _wait(buffer, number - PERIODS + 1)
            buffer[place(number)] = samples[number * PERIOD : (number + 1) * PERIOD]
            if number + 1 >= min(PERIODS, TONE):  # a full ring before the clock starts
                os.write(fd, TOLD.pack(number + 1, number + 1 == TONE))
        _wait(buffer, TONE)
    os.close(fd)


def _wait(buffer: mmap.mmap, periods: int) -> None:
    """Until so many periods were played: the card counts them in the buffer's first byte."""
    limit = time.monotonic() + _PATIENCE
    while buffer[0] < periods:
        if time.monotonic() > limit:
            raise OSError(errno.ETIMEDOUT, "the card plays nothing")
        time.sleep(SECONDS / 8)


# ---------------------------------------------------------------- the story


def _requests(log: list[Event]) -> str:
    counts = Counter(one.op for one in log if one.request and one.op != "CUSE_INIT")
    return ", ".join(f"{op} {count}" for op, count in counts.items())


def _payload(log: list[Event]) -> str:
    """What READ and WRITE carried."""
    reads = sum(one.op == "READ" for one in log if one.request)
    writes = Counter(one.size for one in log if one.request and one.op == "WRITE")
    told = writes.pop(TOLD.size, 0)
    carried = f"{sum(writes.values())} WRITE" if writes else "no WRITE"
    return (
        f"{reads or 'no'} READ and {carried} with samples; "
        f"{told} WRITE of {TOLD.size} bytes said how far the ring is filled"
    )


def _notified(service: Service, periods: int) -> str:
    if not service.ids:
        return "none: the server maps the region's descriptor"
    return f"RETRIEVE {periods} (a period each), STORE {periods} (the position)"


def _pace(times: list[int]) -> str:
    if len(times) < 2:
        return ""
    mean = (times[-1] - times[0]) / (len(times) - 1) / 1e6
    return f", one in {mean:.1f} ms (its clock: {SECONDS * 1e3:.1f})"


def _digest(samples: bytes) -> str:
    return f"{len(samples):,} bytes, sha256 {hashlib.sha256(samples).hexdigest()[:16]}"


def tell(service: Service, rendered: bytes) -> int:
    """Prints what happened; the exit code."""
    log, played = service.log(), service.data(NAME)
    times = [one.time for one in log if one.event == "period"]
    underruns = sum(one.event == "underrun" for one in log)
    same = played == rendered
    print(f"requests       {_requests(log)}")
    print(f"notifications  {_notified(service, len(times))}")
    print(f"payload        {_payload(log)}")
    print(f"played         {len(times)} periods of {FRAMES:,} frames{_pace(times)}")
    print(f"underruns      {underruns}")
    print(f"rendered       {_digest(rendered)}")
    print(f"heard          {_digest(played)}")
    print("samples        equal, bit by bit" if same else "samples        NOT EQUAL")
    return PLAYED if same else DIFFERS


def save(path: Path, samples: bytes) -> None:
    with path.open("wb") as out, wave.open(out, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples)


def perform(wav: Path | None) -> int:
    """The exit code."""
    spoken = direct.dialect()
    with client.device(NAME, b"", Options(direct=True), direct.FLAGS, Card) as device:
        print(f"device         {device.path}, {BUFFER:,} bytes to be mapped")
        print(f"direct mmap    {spoken.value if spoken else 'not in this kernel'}")
        samples = tone()
        with forked(lambda: error_of(partial(player, device.path, samples))) as ended:
            error = ended()
        if error == errno.ENODEV:
            print(f"mmap           ENODEV: {device.path} cannot be mapped here")
            return NOT_MAPPED
        if error:
            print(f"player         {os.strerror(error)}")
            return DIFFERS
        device.wait(Op.MUNMAP)
        device.wait(Op.RELEASE)
        code = tell(device, samples)
        if wav:
            save(wav, device.data(NAME))
            print(f"written        {wav}")
    return code


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="sound.py", description="a sound device of CUSE's")
    parser.add_argument("wav", metavar="WAV", nargs="?", type=Path, help="write what was played")
    try:
        return perform(parser.parse_args(words).wav)
    except OSError as error:
        print(f"sound.py: {error}", file=sys.stderr)
        return DIFFERS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
