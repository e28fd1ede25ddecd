# SPDX-License-Identifier: GPL-2.0-or-later
"""[source] and [options] of kernels/<base>.toml -> model values. Nothing is opened here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from patchlab.building import kconfig
from patchlab.config.names import unknown
from patchlab.config.schema import (
    BaseFile,
    DebianTable,
    DebTable,
    DirectoryTable,
    GitTable,
    TarballTable,
)
from patchlab.config.toml import Document, user_path
from patchlab.errors import UsageError
from patchlab.model import (
    DebianSource,
    DebSource,
    DirectorySource,
    GitSource,
    ImageSource,
    Options,
    Source,
    TarballSource,
)

_PREFIX = "CONFIG_"


def source(document: Document[BaseFile]) -> Source:
    """Relative paths start at the folder of the base's file; ``~`` is the user's home."""
    folder = document.file.resolve().parent

    def path(text: str) -> Path:
        return folder / user_path(text)

    match document.table.source:
        case DebianTable() as table:
            return DebianSource(table.package, table.tarball)
        case DebTable() as table:
            return DebSource(path(table.file), table.sha256, table.tarball)
        case TarballTable() as table:
            return TarballSource(path(table.file), table.sha256)
        case GitTable() as table:
            return GitSource(path(table.repository), table.ref)
        case DirectoryTable() as table:
            return DirectorySource(path(table.path))
        case table:
            config, vmlinux = table.config, table.vmlinux
            return ImageSource(
                path(table.bzimage),
                path(config) if config else None,
                path(vmlinux) if vmlinux else None,
            )


def fragments(document: Document[BaseFile], known: Collection[str]) -> tuple[str, ...]:
    """The base's config fragments. Raises UsageError for one that is not there, or none at all."""
    table = document.table
    if isinstance(source(document), ImageSource):
        if table.fragments:
            message = "fragments at the top: this base is an image, which is not built"
            raise document.error(("fragments",), message, hint="leave fragments out")
        return ()
    if not table.fragments:
        message = "fragments at the top: a base that is built needs config fragments"
        raise document.error(("fragments",), message, hint=f"there are: {', '.join(sorted(known))}")
    for index, name in enumerate(table.fragments):
        with document.at(("fragments", index)):
            if name not in known:
                raise unknown("config fragment", name, known)
            if name in table.fragments[:index]:
                raise UsageError(f"'{name}' comes twice", hint="name it once")
    return table.fragments


def options(document: Document[BaseFile], known: Mapping[str, Path]) -> Options:
    """[options], without CONFIG_.

    Raises UsageError for an option that is declared twice, and for one that no config
    fragment wants, also none that a variant could add.
    """
    table = document.table.options
    renamed = {
        _plain(document, ("options", "renamed", old)): new.removeprefix(_PREFIX)
        for old, new in table.renamed.items()
    }
    absent = {
        _plain(document, ("options", "absent", option)): why for option, why in table.absent.items()
    }
    for option in renamed.keys() & absent.keys():
        message = f"CONFIG_{option} is declared as renamed and as absent"
        raise document.error(("options",), message, hint="keep one of the two")
    if renamed or absent:
        wanted = {line.option for file in known.values() for line in kconfig.read_fragment(file)}
        for table_name, names in (("renamed", table.renamed), ("absent", table.absent)):
            for name in names:
                option = name.removeprefix(_PREFIX)
                if option not in wanted:
                    message = f"CONFIG_{option} is declared and no config fragment wants it"
                    path = ("options", table_name, name)
                    raise document.error(path, message, hint="take the line out")
    return Options(renamed, absent)


def _plain(document: Document[BaseFile], path: tuple[str, str, str]) -> str:
    name = path[-1].removeprefix(_PREFIX)
    if not name.isascii() or not name.replace("_", "").isalnum():
        raise document.error(path, f"'{path[-1]}' is no option", hint="as in CONFIG_SLUB_TINY")
    return name
