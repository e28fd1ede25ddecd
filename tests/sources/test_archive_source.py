# SPDX-License-Identifier: GPL-2.0-or-later
"""Archives and packages that are files: named by their digest, unpacked or refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from patchlab import proc
from patchlab.errors import LostInstrument, UsageError
from patchlab.model import Base, DebSource, TarballSource
from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.sources import source
from tests.sources import small_kernel
from tests.sources.small_kernel import FILES

TOML = '[source]\nkind = "tarball"\nfile = "x"\nsha256 = "0"\ntarball = ""\n'
EXPECTED = FILES | {"link": "-> fs/file.c"}


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def tarred(folder: Path, name: str, *, top: bool = True) -> Path:
    small_kernel.make(folder / "linux-6.99")
    place, what = (folder, "linux-6.99") if top else (folder / "linux-6.99", ".")
    proc.run(["tar", "-caf", str(folder / name), "-C", str(place), what], deadline=30)
    return folder / name


def base(file: Path, sha256: str = "") -> Base:
    return small_kernel.base(file.parent, TarballSource(file, sha256 or digest(file)), TOML)


@pytest.mark.parametrize("suffix", ["tar", "tar.xz", "tar.gz", "tar.zst"])
@pytest.mark.parametrize("top", [True, False])
def test_every_form_of_archive_is_unpacked(tmp_path: Path, suffix: str, top: bool) -> None:
    file = tarred(tmp_path, f"linux-6.99.{suffix}", top=top)
    tree = source.fetch(base(file), Cache(tmp_path / "cache"), Silent())
    assert small_kernel.content(tree.folder) == EXPECTED
    assert tree.sha256 == digest(file)
    assert f"{tree.package} {tree.version}" == f"tarball {file.name} {tree.sha256[:12]}"


def test_a_wrong_digest_and_a_missing_file_are_refused_at_their_line(tmp_path: Path) -> None:
    cache, file = Cache(tmp_path / "cache"), tarred(tmp_path, "linux.tar")
    with pytest.raises(UsageError, match=r"mine\.toml:4: sha256: .*linux\.tar has "):
        source.find(base(file, "0" * 64), cache)
    with pytest.raises(UsageError, match=r"mine\.toml:3: file: .*none\.tar: no such file"):
        source.find(base(tmp_path / "none.tar", "0" * 64), cache)


def test_a_cut_off_archive_and_one_of_no_kernel_publish_nothing(tmp_path: Path) -> None:
    cache, file = Cache(tmp_path / "cache"), tarred(tmp_path, "linux.tar.xz")
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(LostInstrument, match=r"linux\.tar\.xz cannot be read"):
        source.fetch(base(file), cache, Silent())
    proc.run(["tar", "-caf", str(file), "-C", str(tmp_path), "linux-6.99/fs"], deadline=30)
    with pytest.raises(UsageError, match=r"mine\.toml:3: linux\.tar\.xz is no kernel's source"):
        source.fetch(base(file), cache, Silent())
    assert not any(cache.room("sources").iterdir())
    assert not any(cache.room("tmp").iterdir())


def packed(folder: Path, tarballs: tuple[str, ...]) -> Path:
    """A real Debian package with these archives."""
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "usr/src").mkdir(parents=True)
    data = tarred(folder, "linux.tar.xz").read_bytes()
    for name in tarballs:
        (root / "usr/src" / name).write_bytes(data)
    (root / "DEBIAN/control").write_text(
        "Package: linux-source-6.99\nVersion: 6.99.1-1\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@localhost>\nDescription: a test\n"
    )
    proc.run(["dpkg-deb", "--build", str(root), str(folder / "linux.deb")], deadline=30)
    return folder / "linux.deb"


def test_a_package_gives_its_only_source(tmp_path: Path) -> None:
    file = packed(tmp_path, ("linux-source-6.99.tar.xz",))
    mine = small_kernel.base(tmp_path, DebSource(file, digest(file)), TOML)
    tree = source.fetch(mine, Cache(tmp_path / "cache"), Silent())
    assert small_kernel.content(tree.folder) == EXPECTED
    assert {path.name for path in tree.folder.parent.iterdir()} == {"tree", "files.msgpack"}
    assert (tree.package, tree.version) == ("linux-source-6.99", "6.99.1-1")


def test_of_several_sources_one_has_to_be_named(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    file = packed(tmp_path, ("linux-source-6.99.tar.xz", "linux-source-6.98.tar.xz"))
    with pytest.raises(UsageError, match=r"mine\.toml:3: file: linux\.deb has 2 files") as caught:
        mine = small_kernel.base(tmp_path, DebSource(file, digest(file)), TOML)
        source.fetch(mine, cache, Silent())
    assert "usr/src/linux-source-6.98.tar.xz" in caught.value.hint
    named = DebSource(file, digest(file), "usr/src/linux-source-6.98.tar.xz")
    source.fetch(small_kernel.base(tmp_path, named, TOML), cache, Silent())
    absent = DebSource(file, digest(file), "usr/src/none.tar.xz")
    with pytest.raises(
        UsageError, match=r"mine\.toml:5: tarball: linux\.deb has no file usr/src/none"
    ):
        source.fetch(small_kernel.base(tmp_path, absent, TOML), cache, Silent())


def test_a_file_that_is_no_package_is_refused(tmp_path: Path) -> None:
    file = tarred(tmp_path, "linux.tar")
    mine = small_kernel.base(tmp_path, DebSource(file, digest(file)), TOML)
    with pytest.raises(UsageError, match=r"mine\.toml:3: file: .*no Debian package") as caught:
        source.find(mine, Cache(tmp_path / "cache"))
    assert 'kind = "tarball"' in caught.value.hint
