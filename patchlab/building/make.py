# SPDX-License-Identifier: GPL-2.0-or-later
"""Running the kernel's make: in the sandbox, reproducibly, with its progress and its errors."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from patchlab import proc, sandbox
from patchlab.errors import BuildError
from patchlab.sandbox import bubblewrap

# Where the tree is inside the sandbox: DWARF, gcov and __FILE__ carry absolute paths.
INSIDE = Path("/build/linux")
# What an image keeps of a built tree: name in the image -> path in the tree.
PRODUCTS: Mapping[str, str] = {
    "bzImage": "arch/x86/boot/bzImage",
    "vmlinux": "vmlinux",
    "config": ".config",
}
# Documentation/kbuild/reproducible-builds.rst. LOCALVERSION, though empty, keeps
# scripts/setlocalversion from adding a "+".
_ENVIRONMENT = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "patchlab",
    "KBUILD_BUILD_HOST": "patchlab",
    "KBUILD_BUILD_VERSION": "1",
    "LOCALVERSION": "",
    "LC_ALL": "C",
    "PATH": sandbox.PATH,
}
# Kconfig asks for both; a host that has them would get another .config than one that has not.
_WITHOUT = ("RUSTC=no-rustc", "PAHOLE=no-pahole")
_TOOLS = {
    "gcc": "--version",
    "ld": "--version",
    "make": "--version",
    "bison": "--version",
    "flex": "--version",
    "bc": "--version",
    "zstd": "--version",
}
_STEP = re.compile(r"^  [A-Z][A-Z0-9_]* +\S")
_ERROR = re.compile(r"(?:fatal )?error: |^ld: |undefined reference|^make.*\*\*\*")
_SHOWN_ERRORS = 5
_ADVICE = "the log has the rest; a missing tool or header is found by runner.py doctor"


@functools.cache
def toolchain() -> Mapping[str, str]:
    """Tool -> its version line, of the tools inside the sandbox. Raises MissingTool.

    Asked once: seven programs are started for it, and each variant's key wants it twice.
    """
    env = {"PATH": sandbox.PATH}
    return {
        tool: proc.run([tool, option], deadline=20, env=env).output.split("\n", 1)[0]
        for tool, option in _TOOLS.items()
    }


@dataclass(frozen=True, slots=True)
class Maker:
    """Runs make in one tree; the output of every call goes to the same log."""

    tree: Path
    log: Path
    limit: float  # on time.monotonic()
    jobs: int

    def configure(self, target: str) -> None:
        """One of Kconfig's targets: tinyconfig, olddefconfig. Raises BuildError."""
        self._make([target], lambda _: None)

    def build(self, seen: Callable[[int], None]) -> int:
        """Make the kernel; ``seen`` gets the number of steps so far. Returns it in the end.

        Raises BuildError with the first errors of the compiler and the name of the log.
        """
        count = 0

        def line(text: str) -> None:
            nonlocal count
            if _STEP.match(text):
                count += 1
                seen(count)

        self._make([f"-j{self.jobs}", "bzImage"], line)
        return count

    def _make(self, words: list[str], line: Callable[[str], None]) -> None:
        argv = bubblewrap(
            ["make", *_WITHOUT, *words], cwd=INSIDE, write={INSIDE: self.tree}, env=_ENVIRONMENT
        )
        left = self.limit - time.monotonic()
        try:
            proc.run(argv, deadline=max(left, 1.0), log=self.log, line=line)
        except proc.CommandTimedOut:
            raise BuildError(
                f"make {words[-1]} was not done when limits.build ran out; log: {self.log}",
                hint="raise build in [limits] of lab.toml",
            ) from None
        except proc.CommandFailed as error:
            what = "\n".join(f"  {text}" for text in first_errors(self.log)) or error.tail
            raise BuildError(
                f"make {words[-1]} failed (exit {error.code}); log: {self.log}\n{what}",
                hint=_ADVICE,
            ) from error


def first_errors(log: Path) -> list[str]:
    """The first lines of a build log that say what went wrong, without control characters."""
    found: list[str] = []
    with log.open(encoding="utf-8", errors="replace") as lines:
        for text in lines:
            if _ERROR.search(text):
                clean = "".join(c if c.isprintable() else "?" for c in text.rstrip("\n"))
                found.append(clean[:400])
                if len(found) == _SHOWN_ERRORS:
                    break
    return found
