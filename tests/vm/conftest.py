# SPDX-License-Identifier: GPL-2.0-or-later
"""Real kernels and guests, shared by all tests of this folder and with `make lab`."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchlab import config
from patchlab.building import build
from patchlab.guests import root
from patchlab.model import Image, Lab, Root
from patchlab.paths import Cache, default_cache
from patchlab.progress import Silent
from patchlab.runs import features

REPOSITORY = Path(__file__).parents[2]
CONTROL = "fuse-writable-mmap@control"


@pytest.fixture(scope="session", autouse=True)
def temporary() -> Iterator[Path]:
    """A folder for temporary files that only these tests use, for their children as well.

    What is left in it was left by a test, whatever else runs on this host. Its path is short:
    a unix socket's may have 107 bytes.
    """
    kept = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="vm-") as name:
        os.environ["TMPDIR"] = tempfile.tempdir = name
        yield Path(name)
    tempfile.tempdir = None
    if kept is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = kept


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell's background job ignores SIGINT, and so would the runners that tests interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def lab() -> Lab:
    return config.load(REPOSITORY / "lab.toml")


@pytest.fixture(scope="session")
def cache() -> Cache:
    return default_cache()


@pytest.fixture(scope="session")
def base(lab: Lab, cache: Cache) -> Image:
    return build.build(config.find_variant(lab, "base"), lab, cache, Silent())


@pytest.fixture(scope="session")
def control(lab: Lab, cache: Cache) -> Image:
    return build.build(config.find_variant(lab, CONTROL), lab, cache, Silent())


@pytest.fixture(scope="session")
def guest_root(lab: Lab, cache: Cache) -> Root:
    return root.make(lab.machine, cache, Silent())


@pytest.fixture(scope="session")
def catalogue(lab: Lab) -> features.Catalogue:
    return features.catalogue().of(lab.runs[lab.default_run].features)
