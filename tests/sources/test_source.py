# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import re
import shutil
import tarfile
from pathlib import Path

import pytest

from patchlab import proc
from patchlab.building import tree
from patchlab.errors import LostInstrument, MissingTool
from patchlab.paths import Cache
from patchlab.sources import apt, archive

debian = pytest.mark.skipif(shutil.which("apt-cache") is None, reason="needs apt")


def package(folder: Path) -> apt.DebFile:
    """A real Debian package with one file."""
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "usr/src").mkdir(parents=True)
    (root / "usr/src/hello.txt").write_text("hello")
    (root / "DEBIAN/control").write_text(
        "Package: hello\nVersion: 1.0-1\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@localhost>\nDescription: a test\n"
    )
    proc.run(["dpkg-deb", "--build", str(root), str(folder / "hello.deb")], deadline=30)
    return apt.DebFile(folder / "hello.deb", "hello", "1.0-1", "")


@debian
def test_one_file_is_taken_out_of_a_package(tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.mkdir()
    found = apt.extract(package(tmp_path), "usr/src/hello.txt", to)
    assert found == to / "hello.txt"
    assert found.read_text() == "hello"
    assert list(to.iterdir()) == [found]


@debian
def test_a_file_that_the_package_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(LostInstrument, match=r"hello 1\.0-1 has no file usr/src/other"):
        apt.extract(package(tmp_path), "usr/src/other", tmp_path)


@debian
def test_a_package_that_apt_does_not_know_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(MissingTool, match=r"apt knows no package linux-source-0\.0") as caught:
        apt.candidate("linux-source-0.0", Cache(tmp_path))
    assert "apt-get update" in caught.value.hint
    assert list((tmp_path / "hosts").iterdir()) == []


@debian
def test_apts_answer_is_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    first = apt.candidate("dpkg", cache)
    assert first.package == "dpkg"
    assert re.match(r"\d+\.\d+", first.version)
    assert re.fullmatch(r"[0-9a-f]{64}", first.sha256)
    [memory] = (tmp_path / "hosts").iterdir()
    memory.write_bytes(memory.read_bytes().replace(first.version.encode(), b"0-kept"))
    assert apt.candidate("dpkg", cache).version == "0-kept"
    memory.write_text("{ cut o")
    assert apt.candidate("dpkg", cache) == first


@debian
def test_the_mirror_is_the_hosts_own() -> None:
    mirror = apt.mirror()
    assert "://" in mirror.uri or mirror.uri.startswith(("file:", "cdrom:"))
    assert "main" in mirror.components


def long_ago(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = 1_000_000_000
    return member


def small_source(folder: Path) -> Path:
    """A tarball with one top folder, as Debian's are."""
    top = folder / "linux-source-0.1"
    (top / "fs").mkdir(parents=True)
    (top / "Makefile").write_text("all:\n")
    (top / "fs" / "file.c").write_text("int x;\n")
    (top / "link").symlink_to("fs/file.c")
    with tarfile.open(folder / "source.tar.xz", "w:xz") as tar:
        tar.add(top, top.name, filter=long_ago)
    return folder / "source.tar.xz"


def test_a_tarball_is_unpacked_without_its_top_folder(tmp_path: Path) -> None:
    archive.unpack(small_source(tmp_path), tmp_path / "tree", strip=1)
    assert (tmp_path / "tree" / "fs" / "file.c").read_text() == "int x;\n"
    assert (tmp_path / "tree" / "link").is_symlink()


def test_a_cut_off_tarball_is_an_error(tmp_path: Path) -> None:
    tarball = small_source(tmp_path)
    tarball.write_bytes(tarball.read_bytes()[:100])
    with pytest.raises(LostInstrument, match=r"source\.tar\.xz cannot be unpacked"):
        archive.unpack(tarball, tmp_path / "tree", strip=1)


def test_a_clone_shares_sources_and_copies_what_a_build_made(tmp_path: Path) -> None:
    pristine, built, clone = tmp_path / "pristine", tmp_path / "built", tmp_path / "clone"
    archive.unpack(small_source(tmp_path), pristine, strip=1)
    tree.clone(pristine, built)
    (built / "fs" / "file.o").write_text("object")
    (built / "new").mkdir()
    (built / "new" / "made.h").write_text("made")
    (built / "new" / "link").symlink_to("/nowhere")
    (built / "Makefile").unlink()
    (built / "Makefile").write_text("changed:\n")
    tree.clone(pristine, clone)
    tree.lay(pristine, built, clone, ())

    assert (clone / "fs" / "file.c").samefile(pristine / "fs" / "file.c")
    for name in ("fs/file.o", "new/made.h", "Makefile"):
        assert (clone / name).read_text() == (built / name).read_text()
        assert not (clone / name).samefile(built / name)
        assert (clone / name).stat().st_mtime == 1_000_000_000  # that of the newest source
    assert (clone / "new" / "link").readlink() == Path("/nowhere")
    (clone / "fs" / "file.o").write_text("other")
    assert (built / "fs" / "file.o").read_text() == "object"
    assert (pristine / "Makefile").read_text() == "all:\n"
