# SPDX-License-Identifier: GPL-2.0-or-later
"""Config fragments by name: those beside the bases, and a user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from patchlab.config.toml import shown, user_path
from patchlab.errors import UsageError

VARIABLE = "PATCHLAB_CONFIG"
SUFFIX = ".config"


def index(kernels: Path, environment: Mapping[str, str] | None = None) -> dict[str, Path]:
    """Name -> file, of ``kernels/config/*.config`` and of every folder in $PATCHLAB_CONFIG.

    The variable is a list of folders, like $PATH. Raises UsageError for a folder that is
    not there, and for a name that two files have.
    """
    found: dict[str, Path] = {}
    for folder in (kernels / "config", *user_folders(environment)):
        for file in sorted(folder.glob(f"*{SUFFIX}")):
            other = found.setdefault(file.stem, file)
            if other is not file and not other.samefile(file):
                message = f"two config fragments are named '{file.stem}': {other} and {file}"
                raise UsageError(message, hint=f"rename the one in ${VARIABLE}")
    return found


def user_folders(environment: Mapping[str, str] | None = None) -> list[Path]:
    """The folders of $PATCHLAB_CONFIG."""
    text = (os.environ if environment is None else environment).get(VARIABLE, "")
    folders = [user_path(name) for name in text.split(os.pathsep) if name]
    for folder in folders:
        if not folder.is_dir():
            hint = f"it is a list of folders, separated by '{os.pathsep}'"
            raise UsageError(f"${VARIABLE}: no folder {shown(folder)}", hint=hint)
    return folders
