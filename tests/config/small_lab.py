# SPDX-License-Identifier: GPL-2.0-or-later
"""A small lab on disk for the tests of patchlab.config: every kind of file, two bases."""

from __future__ import annotations

from pathlib import Path

from patchlab import config
from patchlab.errors import UsageError
from patchlab.model import Lab

# Line numbers of the tests are those of these texts.
LAB = """\
default = "main"
patches = ["patches"]

[machine]
memory = "1G"
cpus = 2

[machine.root]
packages = [
  "python3",
  "kmod",
]

[[machine.pmem]]
name = "pm0"
size = "512M"

[[machine.pmem]]
name = "pm1"
mkfs = ["-m", "reflink=1"]

[sampling]
blocks = 4

[limits]
boot = 90.5

[run.main]
title = "Main"
base = "linux-6.12"
arms = ["base", "alpha@v1", "alpha@v2 + beta@v1"]
features = ["mapping"]
"""
BASE = """\
title = "Linux 6.12"
fragments = ["slim", "fuse"]
build_steps = 100

[source]
kind = "debian"
package = "linux-source-6.12"
tarball = "usr/src/linux-source-6.12.tar.xz"
"""
ALPHA = """\
title = "Alpha"
feature = "mapping"

[revision.v1]
bases = ["linux-6.12"]

[revision.v2]
bases = ["linux-6.12", "linux-6.1"]
min_context = 1
about = "Second"

[[ledger]]
id = "works"
who = "A reviewer"
date = "2009-06"
demand = "It works."
checks = ["A1", "A99"]
"""
BETA = """\
title = "Beta"
feature = "mapping"

[revision.v1]
bases = ["linux-6.12"]

[revision.old]
bases = ["linux-6.1"]
"""
PATCH = """\
From 0123456789abcdef0123456789abcdef01234567 Mon Sep 17 00:00:00 2001
From: A Person <a@example.org>
Date: Wed, 30 Apr 2008 00:54:41 -0700
Subject: [PATCH {tag}] {subject}

Why.
---
 a | 2 +-
 1 file changed, 1 insertion(+), 1 deletion(-)

diff --git a/a b/a
--- a/a
+++ b/a
@@ -1 +1 @@
-old
+new
"""


def make(folder: Path) -> Path:
    """Write the lab into ``folder`` and return its lab.toml."""
    files = {
        "lab.toml": LAB,
        "kernels/linux-6.12.toml": BASE,
        "kernels/linux-6.1.toml": BASE.replace("6.12", "6.1"),
        "kernels/config/slim.config": "CONFIG_A=y\n",
        "kernels/config/fuse.config": "CONFIG_B=y\n",
        "kernels/config/debug.config": "CONFIG_C=y\n",
        "patches/alpha/series.toml": ALPHA,
        "patches/beta/series.toml": BETA,
        "features/mapping.py": "FEATURE = Feature(CHECKS)\n",
        "features/mapping_rig.py": "# FEATURE = a word\nFEATURES = 0\n",
        "features/mounting.py": "FEATURE: Feature = make()\n",
        "features/_helper.py": "FEATURE = 0\n",
    }
    for place in ("alpha/v1", "alpha/v2", "beta/v1", "beta/old"):
        files[f"patches/{place}/series"] = "# in order\n0001-one.patch\n\n0002-two.patch  # last\n"
        files[f"patches/{place}/0001-one.patch"] = PATCH.format(tag="1/2", subject="a: one")
        files[f"patches/{place}/0002-two.patch"] = PATCH.format(tag="2/2", subject="a: two")
    for name, text in files.items():
        write(folder / name, text)
    return folder / "lab.toml"


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) >= 1, f"{old!r} is not in {file}"
    write(file, text.replace(old, new, 1))


def load(lab: Path) -> Lab:
    return config.load(lab, features=lab.parent / "features")


def fault(lab: Path) -> tuple[str, str]:
    """Message and hint of the error that load gives; paths start at the lab's folder."""
    try:
        load(lab)
    except UsageError as error:
        return str(error).replace(f"{lab.parent}/", ""), error.hint
    raise AssertionError("the lab loads")
