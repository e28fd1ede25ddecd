# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's repository is read, exactly, and not one byte of it changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from patchlab import proc
from patchlab.errors import LostInstrument, UsageError
from patchlab.model import Base, GitSource
from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.sources import source
from tests.sources import small_kernel
from tests.sources.small_kernel import FILES, git

TOML = '[source]\nkind = "git"\nrepository = "linux"\nref = "v6.99"\n'


def base(folder: Path, repository: Path, ref: str = "v6.99") -> Base:
    return small_kernel.base(folder, GitSource(repository, ref), TOML)


def fetched(folder: Path, repository: Path, ref: str = "v6.99") -> dict[str, str]:
    tree = source.fetch(base(folder, repository, ref), Cache(folder / "cache"), Silent())
    return small_kernel.content(tree.folder)


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    return small_kernel.repository(tmp_path / "linux")


def test_a_dirty_repository_gives_the_commit_and_is_left_as_it_was(
    tmp_path: Path, linux: Path
) -> None:
    (linux / "fs/file.c").write_text("dirty\n")
    (linux / "fs/staged.c").write_text("staged\n")
    git(linux, "add", "fs/staged.c")
    (linux / "fs/untracked.c").write_text("untracked\n")
    os.utime(linux / "Kbuild")  # now the index is out of date, and `git status` would write it
    hook = linux / ".git/hooks/post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hook-ran\n")
    hook.chmod(0o755)
    before = small_kernel.listing(linux)

    tree = source.fetch(base(tmp_path, linux), Cache(tmp_path / "cache"), Silent())

    assert small_kernel.listing(linux) == before
    assert small_kernel.content(tree.folder) == FILES | {"link": "-> fs/file.c"}
    assert os.access(tree.folder / "scripts/run.sh", os.X_OK)
    assert not os.access(tree.folder / "fs/file.c", os.X_OK)
    assert not (tmp_path / "hook-ran").exists()
    commit = git(linux, "rev-parse", "--short=12", "HEAD").strip()
    assert f"{tree.package} {tree.version}" == f"git {commit} (ref v6.99)"


def test_attributes_and_filters_alter_nothing_and_run_nothing(tmp_path: Path) -> None:
    odd = {
        ".gitattributes": "*.txt export-ignore\n*.id ident export-subst\n*.f filter=mine\n"
        "*.c text eol=crlf working-tree-encoding=UTF-16\n",
        "kept.txt": "kept\n",
        "a.id": "$Id$ $Format:%H$\n",
        "b.f": "raw\n",
    }
    linux = small_kernel.repository(tmp_path / "linux", odd | {".gitattributes": ""})
    (linux / ".gitattributes").write_text(odd[".gitattributes"])
    (linux / ".git/info").mkdir(exist_ok=True)
    (linux / ".git/info/attributes").write_text("kept.txt export-ignore\n")
    git(linux, "-c", "core.attributesFile=/dev/null", "update-index", "--add", "--cacheinfo",
        f"100644,{git(linux, 'hash-object', '-w', '--no-filters', '.gitattributes').strip()},"
        ".gitattributes")  # fmt: skip
    git(linux, "commit", "--quiet", "--message=attributes")
    git(linux, "config", "filter.mine.smudge", f"touch {tmp_path}/smudged; cat")
    git(linux, "config", "core.autocrlf", "true")
    assert fetched(tmp_path, linux, "HEAD") == FILES | odd | {"link": "-> fs/file.c"}
    assert not (tmp_path / "smudged").exists()


def test_the_key_is_that_of_the_content(tmp_path: Path, linux: Path) -> None:
    cache = Cache(tmp_path / "cache")
    first = source.find(base(tmp_path, linux), cache)
    git(linux, "commit", "--quiet", "--allow-empty", "--message=the same content")
    again = source.find(base(tmp_path, linux, "main"), cache)
    assert again.key == first.key
    assert again.version != first.version
    (linux / "fs/file.c").write_text("int z;\n")
    git(linux, "commit", "--quiet", "--all", "--message=other content")
    assert source.find(base(tmp_path, linux, "main"), cache).key != first.key


def test_one_command_builds_one_state(tmp_path: Path, linux: Path) -> None:
    mine, cache = base(tmp_path, linux, "main"), Cache(tmp_path / "cache")
    key = source.key(mine, cache)
    (linux / "fs/file.c").write_text("int z;\n")
    git(linux, "commit", "--quiet", "--all", "--message=while it builds")
    assert source.fetch(mine, cache, Silent()).key == key
    assert (source.fetch(mine, cache, Silent()).folder / "fs/file.c").read_text() == "int x;\n"


def test_work_trees_bare_repositories_and_borrowed_objects_work(
    tmp_path: Path, linux: Path
) -> None:
    git(linux, "worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    git(tmp_path, "clone", "--quiet", "--bare", str(linux), "bare.git")
    git(tmp_path, "clone", "--quiet", "--shared", "--no-checkout", str(linux), "shared")
    expected = FILES | {"link": "-> fs/file.c"}
    for name in ("linked", "bare.git", "shared"):
        place = tmp_path / f"of-{name}"
        place.mkdir()
        before = small_kernel.listing(tmp_path / name)
        assert fetched(place, tmp_path / name) == expected, name
        assert small_kernel.listing(tmp_path / name) == before


@pytest.mark.parametrize("limit", [10, 100])  # without the Makefile, and with it
def test_a_partial_clone_is_named_and_fetches_nothing(tmp_path: Path, limit: int) -> None:
    linux = small_kernel.repository(tmp_path / "linux", {"fs/big.c": "int x;\n" * 50})
    git(linux, "config", "uploadpack.allowFilter", "true")
    url = f"file://{linux}"
    git(
        tmp_path,
        "clone",
        "--quiet",
        "--no-checkout",
        f"--filter=blob:limit={limit}",
        url,
        "partial",
    )
    before = small_kernel.listing(tmp_path / "partial")
    with pytest.raises(LostInstrument, match=r"partial: \w+ cannot be read whole") as caught:
        fetched(tmp_path, tmp_path / "partial")
    assert "git fetch --refetch" in caught.value.hint
    assert small_kernel.listing(tmp_path / "partial") == before
    assert not any(Cache(tmp_path / "cache").room("sources").iterdir())


@pytest.mark.parametrize(
    ("ref", "message", "hint"),
    [
        ("v6.9", "mine.toml:4: ref: {} has no commit 'v6.9'", "near: v6.99"),
        ("none-such", "mine.toml:4: ref: {} has no commit 'none-such'", "it has 2 branches"),
    ],
)
def test_a_ref_that_is_not_there_is_named_with_near_ones(
    tmp_path: Path, linux: Path, ref: str, message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        source.find(base(tmp_path, linux, ref), Cache(tmp_path / "cache"))
    assert message.format(linux) in str(caught.value)
    assert hint in caught.value.hint


def test_what_is_no_repository_and_no_kernel_is_refused(tmp_path: Path, linux: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with pytest.raises(UsageError, match=r"mine\.toml:3: repository: .*: no such folder"):
        source.find(base(tmp_path, tmp_path / "none"), cache)
    (tmp_path / "plain").mkdir()
    with pytest.raises(UsageError, match=r"mine\.toml:3: .*plain is no git repository"):
        source.find(base(tmp_path, tmp_path / "plain"), cache)
    git(linux, "rm", "--quiet", "Kbuild")
    git(linux, "commit", "--quiet", "--message=no kernel")
    with pytest.raises(UsageError, match=r"mine\.toml:4: ref: 'main' .* no kernel.*: no Kbuild"):
        source.find(base(tmp_path, linux, "main"), cache)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give the repository away")
def test_a_repository_of_another_user_is_read(tmp_path: Path, linux: Path) -> None:
    proc.run(["chown", "-R", "nobody", str(linux)], deadline=30)
    assert fetched(tmp_path, linux)["fs/file.c"] == "int x;\n"
