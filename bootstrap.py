# SPDX-License-Identifier: GPL-2.0-or-later
"""What `make` runs first, with the system's python3: apt packages, then .venv.

Standard library only. Says nothing when all is in place, which takes a tenth of a second.
Exit codes: 0 all is there, 69 it is not and could not be made so, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PYTHON = (3, 11)
STAMP = Path(".venv/requirements.sha256")

if sys.version_info < PYTHON:
    sys.stderr.write(
        f"bootstrap.py: Python {sys.version.split()[0]} at {sys.executable} is too old\n"
        f"  next: use Debian 12 or later, or put a newer python3 first in PATH\n"
    )
    raise SystemExit(69)

from patchlab import host, proc  # noqa: E402
from patchlab.errors import LabError, MissingTool  # noqa: E402


def main(folder: Path) -> int:
    """Set up ``folder``, which holds requirements.txt and gets .venv. Returns the exit code."""
    try:
        if packages():
            # apt may have brought another build of this very Python, and .venv is made for one.
            os.execv(sys.executable, [sys.executable, *sys.argv])
        if not finished(folder):
            indexes(folder / "kernels")
        environment(folder)
    except LabError as error:
        hint = f"\n  next: {error.hint}" if error.hint else ""
        sys.stderr.write(f"bootstrap.py: {error}{hint}\n")
        return MissingTool.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# ---------------------------------------------------------------- apt


def packages() -> bool:
    """Install what is missing, as root; whether there was any. Raises MissingTool.

    An ordinary user gets the line to type.
    """
    missing = host.missing_packages()
    if not missing:
        return False
    say(f"apt packages that are missing: {' '.join(missing)}")
    if os.geteuid() != 0:
        raise MissingTool("they need root to install", hint=host.install_line(missing))
    if not all(_known(package) for package in missing):
        _apt("update")
    try:
        _apt("install", "-y", "--no-install-recommends", *missing)
    except MissingTool:  # an index may be older than what its mirror still has
        _apt("update")
        _apt("install", "-y", "--no-install-recommends", *missing)
    if left := host.missing_packages():
        hint = "runner.py doctor says which program or file of each is wanted"
        raise MissingTool(f"installed, and still missing: {' '.join(left)}", hint=hint)
    return True


def indexes(kernels: Path) -> None:
    """As root, fetch apt's indexes when they lack a Debian package that a kernel comes from.

    A fresh machine may have those of bookworm without those of bookworm-security. What is
    still unknown then, or without a network, is told by the build that wants it.
    """
    if os.geteuid() != 0 or all(_known(package) for package in _sources(kernels)):
        return
    with contextlib.suppress(MissingTool):
        _apt("update")


def _sources(kernels: Path) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_named(sorted(kernels.glob("*.toml")))))


def _named(files: list[Path]) -> Iterator[str]:
    for file in files:
        with contextlib.suppress(OSError, ValueError):  # the lab says what is wrong with it
            base = tomllib.loads(file.read_text("utf-8"))
            for table in (base.get("source"), base.get("reference")):
                if isinstance(table, dict) and isinstance(table.get("package"), str):
                    yield table["package"]


def _known(package: str) -> bool:
    argv = ["apt-cache", "show", package]
    return proc.run(argv, deadline=60, env=_apt_config(), ok=(0, 100)).code == 0


def _apt_config() -> dict[str, str]:
    # apt takes its configuration from the caller, as pip does.
    return {name: os.environ[name] for name in ("APT_CONFIG",) if name in os.environ}


def _apt(verb: str, *words: str) -> None:
    argv = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", verb, *words]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"} | _apt_config()
    try:
        proc.run(argv, deadline=3600, env=quiet, line=say)
    except proc.CommandFailed as error:
        hint = "look at apt's message above, then run make again"
        raise MissingTool(f"apt-get {verb} failed (exit {error.code})", hint=hint) from None


# ---------------------------------------------------------------- .venv


def environment(folder: Path) -> None:
    """Make ``.venv`` anew unless it was finished for the requirements.txt that is there now."""
    requirements, venv = folder / "requirements.txt", folder / ".venv"
    if not requirements.is_file():
        raise MissingTool(f"{requirements}: no such file", hint="git checkout requirements.txt")
    if finished(folder):
        return
    with _alone(folder):
        if finished(folder):
            return
        say(f"Python packages: {venv}")
        _run([sys.executable, "-m", "venv", "--clear", str(venv)], f"{venv} could not be made")
        pip = [str(venv / "bin/python"), "-m", "pip", "install", "-qq", "--require-hashes"]
        _run([*pip, "-r", str(requirements)], f"{requirements}: not all of it could be installed")
        finish(folder)


def finished(folder: Path) -> bool:
    """Whether .venv is whole, and made for this Python and this requirements.txt."""
    if not os.access(folder / ".venv/bin/python", os.X_OK):
        return False
    with contextlib.suppress(OSError):
        return (folder / STAMP).read_text(encoding="ascii") == _stamp(folder)
    return False


def finish(folder: Path) -> None:
    """Said last, so that a .venv that was cut short is made again."""
    (folder / STAMP).write_text(_stamp(folder), encoding="ascii")


def _stamp(folder: Path) -> str:
    wanted = (folder / "requirements.txt").read_bytes() + sys.version.encode()
    return hashlib.sha256(wanted).hexdigest() + "\n"


def _run(argv: list[str], what: str) -> None:
    # pip takes the index, the proxy's certificate and its wheels from the caller.
    kept = {n: v for n, v in os.environ.items() if n.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    try:
        proc.run(argv, deadline=1800, env=kept, line=say)
    except proc.CommandFailed as error:
        hint = "is the Python package index reachable? Then run make again"
        raise MissingTool(f"{what} (exit {error.code})", hint=hint) from None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One set-up of a folder at a time; the lock goes with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent))
