# SPDX-License-Identifier: GPL-2.0-or-later
"""The one error family of the lab.

::

    LabError                     exit code   meaning
    ├── UsageError                   2       the command line or a TOML file is wrong
    │   └── PatchError               2       a patch does not apply
    ├── BuildError                   1       the kernel does not build, or a wanted option is lost
    ├── MissingTool                 69       a program, package or disk space is missing
    ├── LostInstrument              69       QEMU, SSH or the host broke: nothing was measured
    └── StoreError                  69       the cache or the results cannot be read or written

A crashed kernel is not an error but a result: it travels as an ``Outcome`` (model.py).
``KeyboardInterrupt`` is left alone; runner.py turns it into 130. Anything else that
escapes is a bug in the lab (exit code 3).
"""

from __future__ import annotations


class LabError(Exception):
    """An expected failure: ``str(error)`` says where and what, ``hint`` what to do next."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(LabError):
    exit_code = 2


class PatchError(UsageError):
    pass


class BuildError(LabError):
    exit_code = 1


class MissingTool(LabError):
    exit_code = 69


class LostInstrument(LabError):
    exit_code = 69


class StoreError(LabError):
    exit_code = 69
