# SPDX-License-Identifier: GPL-2.0-or-later
"""One stage of a run on a small file system of its own, in a process of its own.

The file system is a tmpfs in a user and mount namespace, so that an ordinary user can make it
too. What is built is no kernel but a tree of five files with the targets of one, in a second.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from patchlab import config, full, proc
from patchlab.building import build
from patchlab.commands import report
from patchlab.errors import LabError
from patchlab.guests import root
from patchlab.model import Base, Lab, Patch, Revision, TarballSource, Variant
from patchlab.paths import Cache, default_cache
from patchlab.progress import Silent
from patchlab.runs import measure
from patchlab.sources import source
from patchlab.store.results import Results
from tests.report.sample_run import sample_run
from tests.store.test_results import begin
from tests.vm import faulty

REPOSITORY = Path(__file__).parents[2]
_MOUNT = 'mount -t tmpfs -o "size=$1,$2" tmpfs "$3" && shift 3 && exec "$@"'
_MAKEFILE = """\
VERSION = 6
PATCHLEVEL = 12
SIZE = 1
tinyconfig olddefconfig:
\t@touch .config
bzImage:
\t@mkdir -p arch/x86/boot include/config
\t@echo '  CC      everything'
\t@head -c $(SIZE) /dev/zero >arch/x86/boot/bzImage
\t@cp /usr/bin/true vmlinux
\t@echo 6.12.0 >include/config/kernel.release
"""
LARGE = 12_000_000  # bytes; more than the file systems of these tests have
_PATCH = f"""\
--- a/Makefile
+++ b/Makefile
@@ -1,5 +1,5 @@
 VERSION = 6
 PATCHLEVEL = 12
-SIZE = 1
+SIZE = {LARGE}
 tinyconfig olddefconfig:
 \t@touch .config
"""


@dataclass(frozen=True, slots=True)
class Said:
    """What a user was told, and what was left on the small file system."""

    error: str  # class, "" when it worked
    message: str
    hint: str
    exit_code: int
    left: tuple[str, ...]
    result: str = ""


def on_small_disk(stage: str, folder: Path, work: Path, size: str, options: str = "rw") -> Said:
    """Run one of STAGES with a tmpfs of ``size`` at ``folder``; ``work`` is on another one."""
    folder.mkdir()
    work.mkdir(exist_ok=True)
    argv = ["unshare", "-rm", "sh", "-c", _MOUNT, "sh", size, options, str(folder)]
    argv += [sys.executable, "-m", __name__, stage, str(folder), str(work)]
    ran = proc.run(argv, deadline=900, cwd=REPOSITORY, env={"XDG_CACHE_HOME": _cache_home()})
    answer = json.loads(ran.output.splitlines()[-1])
    return Said(**answer | {"left": tuple(answer["left"])})


def _cache_home() -> str:
    return str(default_cache().folder.parent)


# ---------------------------------------------------------------- a small tree


def small_lab() -> Lab:
    return config.load(REPOSITORY / "lab.toml")


def small_base(work: Path, *, size: int = 1, ballast: int = 0) -> Variant:
    """A base whose build writes ``size`` bytes, and whose source has ``ballast`` more."""
    tarball = work / f"small-{size}-{ballast}.tar"
    texts = {
        "Makefile": _MAKEFILE.replace("SIZE = 1", f"SIZE = {size}").encode(),
        "Kbuild": b"",
        "Kconfig": b"",
        "ballast": b"x" * ballast,
    }
    with tarfile.open(tarball, "w") as archive:
        for name, data in texts.items():
            info = tarfile.TarInfo(f"linux/{name}")
            info.size, info.mtime = len(data), 1_000_000_000
            archive.addfile(info, io.BytesIO(data))
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    base = Base("small", "", REPOSITORY / "lab.toml", TarballSource(tarball, digest), (), 1)
    return Variant("base", base)


def large_variant(base: Variant, work: Path) -> Variant:
    """A revision of it whose build writes LARGE bytes."""
    file = work / "large.patch"
    file.write_text(_PATCH)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    revision = Revision("small", "v1", ("small",), (Patch(file, "large", digest),), 3)
    return replace(base, name="small@v1", revisions=(revision,))


# ---------------------------------------------------------------- stages: (small disk, work)


def unpack(folder: Path, work: Path) -> None:
    source.fetch(small_base(work, ballast=LARGE).base, Cache(folder), Silent())


def base_build(folder: Path, work: Path) -> None:
    build.build(small_base(work, size=LARGE), small_lab(), Cache(folder), Silent())


def variant_build(folder: Path, work: Path) -> str:
    base = small_base(work)
    build.build(base, small_lab(), Cache(folder), Silent())
    build.build(large_variant(base, work), small_lab(), Cache(folder), Silent())
    return "built"


def guest_root(folder: Path, work: Path) -> None:  # noqa: ARG001
    root.make(small_lab().machine, Cache(folder), Silent())


def private_folder(folder: Path, work: Path) -> str:
    """A boot whose $TMPDIR has no room for the pmem device."""
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return _boot(work, work / "boot")


def boot_results(folder: Path, work: Path) -> str:
    """A boot whose console has no room."""
    fill(folder, leave=0)
    return _boot(work, folder / "boot")


def _boot(work: Path, results: Path) -> str:
    lab, cache = small_lab(), default_cache()
    image = build.find(config.find_variant(lab, "base"), lab, cache)
    assert image, "the base has to be built for this"
    one = faulty.task(image, faulty.code(work / "agent", faulty.NONE))
    record = measure.boot(one, root.make(lab.machine, cache, Silent()), lab, results, 1, (), _STEP)
    return f"{record.outcome}: {record.reason}"


def results_database(folder: Path, work: Path) -> None:  # noqa: ARG001
    with Results.open(folder / "lab.sqlite") as results:
        fill(folder, leave=0)
        run = sample_run()
        begun = begin(results, run)
        for boot in run.boots:
            results.save_boot(begun, boot)


def report_page(folder: Path, work: Path) -> None:  # noqa: ARG001
    fill(folder, leave=0)
    with full.told("report", folder, full.RESULTS_REMEDY):
        report.write_html(folder, sample_run())


def build_verb(folder: Path, work: Path) -> str:  # noqa: ARG001
    """``runner.py build`` with a cache that is full: its exit code, and what it said."""
    (folder / "patchlab").mkdir()
    fill(folder, leave=0)
    argv = [sys.executable, "runner.py", "build", "base"]
    env = {"XDG_CACHE_HOME": str(folder)}
    ran = proc.run(argv, deadline=300, cwd=REPOSITORY, env=env, ok=range(256))
    return f"{ran.code} {ran.output}"


def any_use(folder: Path, work: Path) -> str:
    """A whole build, a boot's worth of sockets: what a cache in an odd place is used for."""
    base = small_base(work)
    first = build.build(base, small_lab(), Cache(folder), Silent())
    again = build.build(base, small_lab(), Cache(folder), Silent())
    return "same" if first == again else "not kept"


def fill(folder: Path, *, leave: int) -> None:
    """Take all of a file system but ``leave`` bytes."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 65536)
        except OSError:
            pass
        size = file.seek(0, 2)
        file.truncate(max(0, size - leave))


class _Step:
    def advance(self, done: float, total: float) -> None:
        pass


_STEP = _Step()
Stage = Callable[[Path, Path], Any]
STAGES: dict[str, Stage] = {
    stage.__name__: stage
    for stage in (
        unpack,
        base_build,
        variant_build,
        guest_root,
        private_folder,
        boot_results,
        results_database,
        report_page,
        build_verb,
        any_use,
    )
}


def main(stage: str, folder: Path, work: Path) -> None:
    said: dict[str, Any] = {"error": "", "message": "", "hint": "", "exit_code": 0}
    try:
        said["result"] = STAGES[stage](folder, work) or ""
    except LabError as error:
        said["error"] = type(error).__name__
        said |= {"message": str(error), "hint": error.hint, "exit_code": error.exit_code}
    left = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*"))]
    sys.stdout.write(json.dumps(said | {"left": left}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
