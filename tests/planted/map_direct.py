# SPDX-License-Identifier: GPL-2.0-or-later
# ruff: noqa: E101  (kernel text has tabs)
"""Makes tests/planted/patches/planted-map-direct: a switch, and a patch for each fault.

    python -m tests.planted.map_direct SOURCE

SOURCE is an unpatched kernel of the base. Each fault replaces a text that has to be there once,
so that a revision of map-direct which changes under it is noticed here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchlab.runs import features
from tests.planted.map_direct_faults import FAULTS, Fault, Replace

_CHECKS = features.catalogue().of(["map_direct"]).checks
_HERE = Path(__file__).parent
_SERIES = _HERE.parents[1] / "patches" / "map-direct"
_TARGET = _HERE / "patches" / "planted-map-direct"
_HEADER = "include/linux/md_plant.h"
_HOME = "fs/dax.c"
_AUTHOR = "The patchlab authors <patchlab@localhost>"
_DATE = "2026-11-21T16:00:00+0000"
_LINE = 72

_HEADER_TEXT = """\
/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LINUX_MD_PLANT_H
#define _LINUX_MD_PLANT_H

#include <linux/compiler.h>
#include <linux/types.h>

/* Faults planted for tests, at most one per boot: md.plant=<name> */
enum md_plant {
	MD_PLANT_NONE,
};

extern enum md_plant md_plant;

static inline bool md_planted(enum md_plant fault)
{
	return unlikely(md_plant == fault);
}

#endif /* _LINUX_MD_PLANT_H */
"""

_SWITCH = """\
enum md_plant md_plant __ro_after_init;
EXPORT_SYMBOL_GPL(md_plant);

static const char * const md_plant_names[] = {
	[MD_PLANT_NONE]			= "none",
};

static int md_plant_set(const char *val, const struct kernel_param *kp)
{
	int fault = match_string(md_plant_names, ARRAY_SIZE(md_plant_names),
				 val);

	if (fault < 0)
		return fault;

	md_plant = fault;
	pr_notice("planted fault: %s\\n", val);
	return 0;
}

static int md_plant_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%s\\n", md_plant_names[md_plant]);
}

static const struct kernel_param_ops md_plant_ops = {
	.set	= md_plant_set,
	.get	= md_plant_get,
};

#undef MODULE_PARAM_PREFIX
#define MODULE_PARAM_PREFIX "md."
module_param_cb(plant, &md_plant_ops, NULL, 0444);

"""

_SWITCH_LOG = """\
A check that has never failed proves little.  The following patches put
faults into MAP_DIRECT and into what it stands on, for each check one on
which it has to fail.

Add the switch first: md.plant=<name> on the kernel's command line,
"none" by default.  One image then serves all faults, and without the
parameter it behaves like the revision that it was made from.

The parameter cannot be written at run time: a fault holds for the whole
life of a mapping.  So md_plant is constant once the kernel runs, and
reading it needs no lock.  It lives in fs/dax.c, which is never a module.

An unknown name is an error that the kernel reports at boot, and nothing
is planted.  The name in force is in the log and in
/sys/module/md/parameters/plant.
"""

_SWITCH_EDITS = (
    Replace(
        _HOME,
        "#include <linux/memcontrol.h>\n",
        "#include <linux/md_plant.h>\n#include <linux/memcontrol.h>\n",
    ),
    Replace(
        _HOME, "#include <linux/mm.h>\n", "#include <linux/mm.h>\n#include <linux/moduleparam.h>\n"
    ),
    Replace(
        _HOME,
        "/* We choose 4096 entries - same as",
        _SWITCH + "/* We choose 4096 entries - same as",
    ),
)


@dataclass(frozen=True, slots=True)
class Tree:
    """A git repository with those files of a kernel that patches touch."""

    folder: Path

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x", "-c", "core.abbrev=7", *words],
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(self.folder),
                "GIT_AUTHOR_DATE": _DATE,
                "GIT_COMMITTER_DATE": _DATE,
                "GIT_CONFIG_NOSYSTEM": "1",
            },
        )
        return done.stdout

    def replace(self, edit: Replace) -> None:
        path = self.folder / edit.path
        text = path.read_text()
        if text.count(edit.old) != 1:
            times = text.count(edit.old)
            raise SystemExit(f"{edit.path}: {times} times instead of once:\n{edit.old}")
        path.write_text(text.replace(edit.old, edit.new))

    def commit(self, subject: str, body: str, note: str) -> None:
        self.git("add", "--all")
        message = f"{subject}\n\n{body.rstrip()}\n\nSigned-off-by: {_AUTHOR}\n"
        self.git("commit", "--quiet", "--author", _AUTHOR, "-m", message)
        self.git("notes", "add", "-m", f"{note}\n\nLicense: GPL-2.0-only")


def touched(patches: Sequence[Path]) -> set[str]:
    """The files that patches change or delete; not those that they make."""
    lines = (line for patch in patches for line in patch.read_text().splitlines())
    return {line.removeprefix("--- a/") for line in lines if line.startswith("--- a/")}


def prepare(source: Path, revision: str, faults: Sequence[Fault], folder: Path) -> Tree:
    """The revision's files, committed."""
    patches = [_SERIES / revision / name for name in _listed(_SERIES / revision / "series")]
    wanted = touched(patches) | {edit.path for fault in faults for edit in fault.edits} | {_HOME}
    for name in sorted(wanted):
        if not (source / name).is_file():
            continue  # a patch of the revision makes it
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
    tree = Tree(folder)
    tree.git("init", "--quiet")
    for patch in patches:
        tree.git("apply", str(patch))
    tree.git("add", "--all")
    tree.git("commit", "--quiet", "-m", revision)
    tree.git("tag", "revision")
    return tree


def plant(tree: Tree, faults: Sequence[Fault]) -> None:
    """A commit for the switch, and one for each fault."""
    header = tree.folder / _HEADER
    header.parent.mkdir(parents=True, exist_ok=True)
    header.write_text(_HEADER_TEXT)
    for edit in _SWITCH_EDITS:
        tree.replace(edit)
    what = "A switch for faults planted on purpose, for the tests of the lab.  Not for merging."
    tree.commit("dax: add a switch for planted faults", _SWITCH_LOG, what)
    last = ("MD_PLANT_NONE", '\t[MD_PLANT_NONE]			= "none",\n')
    for fault in faults:
        for edit in (*fault.edits, *_included(tree, fault)):
            tree.replace(edit)
        name = "MD_PLANT_" + fault.name.upper().replace("-", "_")
        tree.replace(Replace(_HEADER, f"\t{last[0]},\n", f"\t{last[0]},\n\t{name},\n"))
        entry = f'\t[{name}]{_tabs(name)}= "{fault.name}",\n'
        tree.replace(Replace(_HOME, last[1], last[1] + entry))
        last = (name, entry)
        body = f"For the check of {fault.check}.\n\n{fault.says}"
        tree.commit(
            f"{fault.area}: plant {fault.name}, {fault.title}",
            body,
            "A fault planted on purpose, for the tests of the lab.  Not for merging.",
        )


def _tabs(name: str) -> str:
    """As many as bring the equals signs below each other."""
    return "\t" * max(1, 4 - (len(name) + 2) // 8)


def _included(tree: Tree, fault: Fault) -> list[Replace]:
    """The header, in each file that does not have it yet."""
    found = []
    for path in dict.fromkeys(edit.path for edit in fault.edits):
        text = (tree.folder / path).read_text()
        if "linux/md_plant.h" not in text:
            lines = [line for line in text.splitlines(True) if line.startswith("#include ")]
            first = next((line for line in lines if "<linux/" in line), lines[-1])
            found.append(Replace(path, first, first + "#include <linux/md_plant.h>\n"))
    return found


def export(tree: Tree, target: Path) -> None:
    """The patches since the revision, and ``series``."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    how = ("--quiet", "--notes", "--no-signature", "--zero-commit")
    tree.git("format-patch", *how, "-o", str(target), "revision")
    names = sorted(path.name for path in target.glob("*.patch"))
    lines = ["# SPDX-License-Identifier: GPL-2.0-or-later", *names]
    (target / "series").write_text("\n".join(lines) + "\n")


def table() -> str:
    """What series.toml says of the faults: each with the checks that claim to fail on it."""
    lines = []
    for revision, faults in FAULTS.items():
        lines += ["#", f"# On {revision}:", "#"]
        for fault in faults:
            place = f"planted-map-direct@{revision} md.plant={fault.name};"
            claimed = [one.id for one in _CHECKS if place in f"{one.red};"]
            lines += [f"#   {fault.name:<15} {check:<4} {fault.title}" for check in claimed]
    return "\n".join(lines)


_SERIES_TEXT = """\
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Kernels on which the checks of MAP_DIRECT have to fail, to be put on top of the revision of
# map-direct that has the same name. One image has all faults of a revision; md.plant=NAME on
# its command line chooses one, and without it the image behaves as the revision does.
# tests/planted/map_direct.py makes all of this folder.
{table}
title = "Faults planted for the checks of MAP_DIRECT"
feature = "map_direct"
"""

_REVISION_TEXT = """
[revision.{name}]
bases = ["linux-6.12"]
min_context = 3
about = "For map-direct@{name}: a switch, md.plant=NAME, and faults; none is on by default."
"""


def _listed(series: Path) -> list[str]:
    return [line for line in series.read_text().split("\n") if line.endswith(".patch")]


def main(source: Path) -> None:
    for revision, faults in FAULTS.items():
        with tempfile.TemporaryDirectory() as name:
            tree = prepare(source, revision, faults, Path(name))
            plant(tree, faults)
            export(tree, _TARGET / revision)
    text = _SERIES_TEXT.format(table=table())
    text += "".join(_REVISION_TEXT.format(name=name) for name in FAULTS)
    (_TARGET / "series.toml").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
