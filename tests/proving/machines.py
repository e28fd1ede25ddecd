# SPDX-License-Identifier: GPL-2.0-or-later
"""The two commands of the README on fresh machines, and all of the lab as an ordinary user.

``machines`` lends each machine a cache, ``machines-empty`` does not. A machine keeps its
cache, so the second time is shorter. ``user`` makes a user on this host and removes it.
All of them need root.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from patchlab import config, host, proc
from patchlab.building import build
from patchlab.errors import MissingTool, UsageError
from patchlab.store import content
from tests.proving import bare, evidence
from tests.proving.desk import REPOSITORY, Proving, now

SUITES = ("bookworm", "trixie")
USER = "patchlab-prove"
_RECIPE = "1"
_RUNNER = "cd patchlab && .venv/bin/python runner.py"
_DEADLINE = 4 * 3600.0
_TAIL = 3  # lines of a command's output that the page shows
# What decides whether a fresh machine works, besides the machine.
_FILES = (
    *("Makefile", "bootstrap.py", "requirements.txt", "lab.toml"),
    *("patchlab/host.py", "patchlab/guests/root.py", "patchlab/sandbox.py"),
)
# Debian 13 has no linux-source-6.1: the lab has to say so, and what to do.
_OLD_BASE = """\
title = "Linux 6.1, Debian's"
fragments = ["hotpath", "guest", "pmem", "xfs", "fuse"]
build_steps = 2000

[source]
kind = "debian"
package = "linux-source-6.1"
tarball = "usr/src/linux-source-6.1.tar.xz"
"""
_OLD_LAB = f"""\
mkdir -p old/kernels old/patches && cd old && \
ln -s ~/patchlab/kernels/config kernels/ && cat > kernels/linux-6.1.toml <<'EOF' && \
sed -e '/^\\[run\\./,$d' -e 's/^default.*/default = "old"/' ~/patchlab/lab.toml > lab.toml && \
printf '[run.old]\\ntitle = "6.1"\\nbase = "linux-6.1"\\narms = ["base"]\\n\
features = ["fuse_writable_mmap"]\\n' >> lab.toml
{_OLD_BASE}EOF
cd ~/patchlab && .venv/bin/python runner.py --lab ~/old/lab.toml build base
"""


class Command(msgspec.Struct, frozen=True):
    """A command and what has to come of it."""

    title: str
    shell: str
    codes: tuple[int, ...] = (0,)
    says: str = ""  # a word that the output has to have


class Ran(msgspec.Struct, frozen=True):
    title: str
    code: int
    seconds: float
    held: bool
    tail: tuple[str, ...]


class Tried(msgspec.Struct, frozen=True):
    """All commands on one machine."""

    key: str
    machine: str
    cache: str  # lent or empty
    versions: Mapping[str, str]
    ran: tuple[Ran, ...]
    commit: str
    when: str

    @property
    def held(self) -> bool:
        return all(one.held for one in self.ran)


SETUP = (
    Command("git clone", f"git -c advice.detachedHead=false clone -q {bare.BUNDLE} patchlab"),
    Command("make setup", "cd patchlab && make setup"),
    Command("make setup, again", "cd patchlab && make setup"),
    Command("runner.py doctor", f"{_RUNNER} doctor"),
    Command("runner.py check base", f"{_RUNNER} check base"),
)
README = (
    Command("make lab", "cd patchlab && make lab"),
    Command("make check", "cd patchlab && make check"),
)
VM_TESTS = Command(
    "pytest tests/vm/test_boot.py",
    "cd patchlab && .venv/bin/python -m pytest -q tests/vm/test_boot.py",
)
OLD_ON_13 = Command("build of linux-source-6.1", _OLD_LAB, (69,), "in 12 only")
_VERSIONS = {
    "Debian": "cat /etc/debian_version",
    "Python": "python3 --version",
    "gcc": "gcc --version",
    "ld": "ld --version",
    "QEMU": "qemu-system-x86_64 --version",
    "bubblewrap": "bwrap --version",
    "mmdebstrap": "mmdebstrap --version",
}


def machines(proving: Proving) -> list[str]:
    """Bare Debian 12 and 13, with a cache lent: set-up, check boots, and the whole of lab.toml."""
    return _machines(proving, "machines", "lent", (*SETUP, README[0]))


def machines_empty(proving: Proving) -> list[str]:
    """Bare Debian 12 and 13 with nothing: both commands of the README. Hours."""
    return _machines(proving, "machines-empty", "empty", (SETUP[0], *README))


def _machines(proving: Proving, step: str, cache: str, commands: Sequence[Command]) -> list[str]:
    _need_root("makes machines")
    wrong: list[str] = []
    for suite in SUITES:
        more = (OLD_ON_13,) if suite == "trixie" else ()
        what = _What(step, f"Debian {suite}", cache, (*commands, *more))
        wrong += _show(what, proving, _on_machine(suite, cache, proving))
    return wrong


def user(proving: Proving) -> list[str]:
    """An ordinary user makes the guest's root, builds, boots, and passes the tests of boots."""
    _need_root("makes a user")
    what = _What("user", "An ordinary user of this host", "lent", (*SETUP, VM_TESTS))
    return _show(what, proving, _as_user(proving))


# ---------------------------------------------------------------- keeping what was shown

Door = Callable[[str, Path], proc.Completed]  # runs a shell command there; its log


@dataclass(frozen=True, slots=True)
class _What:
    """What is tried, and on which machine."""

    step: str
    machine: str
    cache: str
    commands: tuple[Command, ...]

    @property
    def key(self) -> str:
        files = [(REPOSITORY / path).read_bytes() for path in _FILES]
        said = msgspec.json.encode(self.commands)
        return content.digest(_RECIPE, self.machine, self.cache, said, *files)


def _show(
    what: _What, proving: Proving, place: contextlib.AbstractContextManager[Door]
) -> list[str]:
    """Try it unless it held already, keep the record, write the page."""
    file = proving.evidence / f"{what.step}.json"
    shown = evidence.load(file, Tried)
    found = next((one for one in shown if one.key == what.key and one.held), None)
    if found is None:
        found = _try(what, proving, place)
        others = [one for one in shown if one.machine != what.machine]
        shown = sorted([*others, found], key=lambda one: one.machine)
        evidence.store(file, what.step, shown)
    evidence.write(file.with_suffix(".md"), page(shown))
    where = f"{what.machine}, {what.cache} cache"
    return [f"{where}: {one.title}: exit {one.code}" for one in found.ran if not one.held]


def _try(what: _What, proving: Proving, place: contextlib.AbstractContextManager[Door]) -> Tried:
    logs = proving.results / what.step / what.machine.rpartition(" ")[2]
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    ran: list[Ran] = []
    with place as door:
        for number, command in enumerate(what.commands):
            with proving.progress.step(f"{what.machine}: {command.title}"):
                ran.append(run(command, door, logs / f"{number}.log"))
            if not ran[-1].held:
                break
        versions = {
            name: _first(door(line, logs / "versions.log").output)
            for name, line in _VERSIONS.items()
        }
    return Tried(what.key, what.machine, what.cache, versions, tuple(ran), proving.commit, now())


def run(command: Command, door: Door, log: Path) -> Ran:
    begun = time.monotonic()
    done = door(command.shell, log)
    seconds = time.monotonic() - begun
    held = done.code in command.codes and command.says in done.output
    tail = [line.rstrip() for line in done.output.splitlines() if line.strip()][-_TAIL:]
    return Ran(command.title, done.code, seconds, held, tuple(tail))


def _first(text: str) -> str:
    return text.strip().split("\n", 1)[0]


def page(tried: Sequence[Tried]) -> str:
    lines = [
        "# Fresh machines, and an ordinary user",
        "",
        "A bare machine is what mmdebstrap makes of a Debian suite with git, make, python3 and",
        "ca-certificates, in namespaces of its own. There a clone of the commit was set up and",
        "used, on a cache that was lent or an empty one. The ordinary user was made for it on",
        "this host, and removed.",
    ]
    for one in tried:
        lines += [
            "",
            f"## {one.machine}, {one.cache} cache",
            "",
            f"Tried {one.when} at commit `{one.commit}`.",
            "",
            "| command | exit code | seconds | its last line |",
            "|---|---|---|---|",
        ]
        for ran in one.ran:
            code = f"{ran.code}" if ran.held else f"**{ran.code} (!)**"
            last = evidence.line(ran.tail[-1]) if ran.tail else ""
            lines.append(f"| {ran.title} | {code} | {ran.seconds:.0f} | `{last}` |")
        said = [f"{name}: `{evidence.line(text)}`" for name, text in one.versions.items()]
        lines += ["", f"{'; '.join(said)}."]
    return "\n".join(lines).replace("``", "") + "\n"


# ---------------------------------------------------------------- the machines


@contextlib.contextmanager
def _on_machine(suite: str, kind: str, proving: Proving) -> Iterator[Door]:
    cache = bare.HOME / f"{suite}.cache"
    if kind == "empty":
        shutil.rmtree(cache, ignore_errors=True)
    elif not cache.is_dir():
        _lend(proving, cache)
    with _bundle() as bundle, bare.machine(suite, bundle, cache, proving.progress) as machine:
        yield lambda shell, log: machine.run(shell, log, _DEADLINE)


@contextlib.contextmanager
def _bundle() -> Iterator[Path]:
    """HEAD as a file that anybody may clone; git refuses a folder of another owner."""
    folder = Path("/var/tmp") / f"patchlab-bundle-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        git = ["git", "-C", str(REPOSITORY)]
        proc.run([*git, "bundle", "create", str(folder / "bundle"), "HEAD"], deadline=300)
        yield folder / "bundle"
    finally:
        shutil.rmtree(folder)


def _lend(proving: Proving, to: Path, *, root: bool = True) -> None:
    """Copy what the shipped lab's base stands on; hard links stay hard links."""
    lab = config.load(REPOSITORY / "lab.toml")
    base = build.plan_key(config.find_variant(lab, "base"), lab, proving.cache)
    names = ["sources", f"trees/{base}", f"images/{base}", *(["roots"] if root else [])]
    there = [name for name in names if (proving.cache.folder / name).exists()]
    half = to.with_name(f"{to.name}.new")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    if there:
        argv = ["cp", "-a", "--parents", "--", *there, str(half)]
        with proving.progress.step("lend the cache"):
            proc.run(argv, deadline=1800, cwd=proving.cache.folder)
    half.rename(to)


def _need_root(what: str) -> None:
    if os.geteuid() != 0:
        raise UsageError(
            f"this step {what}, and needs root", hint="sudo .venv/bin/python -m tests.prove STEP"
        )


# ---------------------------------------------------------------- the user


@contextlib.contextmanager
def _as_user(proving: Proving) -> Iterator[Door]:
    if not shutil.which("newuidmap"):
        raise MissingTool("newuidmap: no such program", hint=host.install_line(("uidmap",)))
    with _bundle() as bundle, _user() as home:
        _lend(proving, home / ".cache/patchlab", root=False)
        proc.run(["chown", "-R", "-h", f"{USER}:", str(home)], deadline=600)

        def door(shell: str, log: Path) -> proc.Completed:
            argv = _user_argv(home, shell.replace(bare.BUNDLE, str(bundle)))
            return proc.run(argv, deadline=_DEADLINE, cwd=home, log=log, ok=range(256))

        yield door


@contextlib.contextmanager
def _user() -> Iterator[Path]:
    with contextlib.suppress(KeyError):
        pwd.getpwnam(USER)
        _remove_user()  # of a killed run
    proc.run(["useradd", "--create-home", "--shell", "/bin/sh", USER], deadline=60)
    try:
        yield Path(pwd.getpwnam(USER).pw_dir)
    finally:
        _remove_user()


def _remove_user() -> None:
    proc.run(["userdel", "--remove", USER], deadline=600, ok=(0, 12))


def _user_argv(home: Path, shell: str) -> list[str]:
    """As ``login`` would: no capability, no other group, nothing of root's environment."""
    variables = {"HOME": str(home), "USER": USER, "PATH": "/usr/local/bin:/usr/bin:/bin"}
    given = [f"{name}={value}" for name, value in (variables | bare.package_index()).items()]
    become = ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--inh-caps=-all"]
    return [*become, "env", "-i", *given, "sh", "-c", shell]
