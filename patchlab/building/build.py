# SPDX-License-Identifier: GPL-2.0-or-later
"""Variant -> image.

The base, with the variant's config fragments, is built first, and its tree kept. A variant
with patches goes on from there in a tree of its own, so make compiles only what they touch.
That tree is thrown away, unless it took long: then the next variant of the same series goes on
from it when that leaves less to compile, as after a patch of linux/fs.h. Never one of another
series: what a patch did to the tools in its tree must not reach a kernel without it.
Everything that make runs comes from the tree, so it runs in the sandbox, which shows the
tree at one fixed path.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from patchlab import scratch
from patchlab.building import elf, kconfig, make, series, tree, whole
from patchlab.building.kconfig import Merged
from patchlab.errors import BuildError
from patchlab.model import AppliedPatch, Base, Image, ImageSource, Lab, SourceTree, Variant
from patchlab.paths import Cache
from patchlab.progress import Progress, Silent
from patchlab.reviews import inspection
from patchlab.sources import image, pristine, source
from patchlab.sources.found import Found
from patchlab.store import content

# Part of every key: raise it when the same inputs would give other bytes.
_RECIPE = "1"
_MANIFEST = "image.json"
_TREE = "tree"
_BUILT = "built.json"
_STEPS = "steps"  # a room of the cache: how many steps each variant took last time
# What a variant's first build takes beyond its changed files: modpost, links, compression.
_LINK_STEPS = 60
# A tree of 1 GB is worth keeping when it took about this many steps, some minutes.
_KEPT_STEPS = 600
_RELEASE = re.compile(r"[\w.+~-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides the bytes of an image; known before anything slow."""

    variant: Variant
    key: str
    merged: Merged
    toolchain: Mapping[str, str]
    found: Found  # the source that it is built from


@dataclass(frozen=True, slots=True)
class Shop:
    """Where and how a build goes on; decides nothing about its bytes."""

    lab: Lab
    cache: Cache
    progress: Progress
    jobs: int


def build(
    variant: Variant, lab: Lab, cache: Cache, progress: Progress, jobs: int | None = None
) -> Image:
    """The image of ``variant``, from the cache or built now (minutes; a cold base, many).

    ``jobs`` is how many processes make runs at once, one a core by default. Raises
    PatchError, BuildError (the kernel does not build in ``limits.build`` seconds, or loses
    a wanted option; names the log), MissingTool and LostInstrument. A failed or killed
    build publishes nothing.
    """
    shop = Shop(lab, cache, progress, jobs or os.cpu_count() or 1)
    plan = plan_of(variant, lab, cache)
    images = cache.room("images")
    whole.keep(images, plan.key, whole.image_damage, progress)
    if isinstance(variant.base.source, ImageSource):
        _take(variant.base, variant.base.source, plan, lab, images)
    elif content.use(images, plan.key) is None:
        for earlier, later in plan.merged.conflicts:
            progress.note(f"{later}: {later.text} instead of {earlier.text} ({earlier})")
        tree.require_room_for_trees(cache.room("trees"))
        sources = source.fetch(variant.base, cache, progress)
        base = _base_tree(plan_of(unpatched(variant), lab, cache), sources, shop)
        content.publish(images, plan.key, lambda to: _image(plan, sources, base, to, shop))
    return _load(images / plan.key, plan)


def _take(base: Base, origin: ImageSource, plan: Plan, lab: Lab, images: Path) -> None:
    """An image that the user has built. UsageError when its config lacks what the lab needs."""
    image.require_options(base, origin, lab.machine)

    def fill(to: Path) -> None:
        taken = image.collect(base, origin, plan.found, plan.key, to)
        (to / _MANIFEST).write_bytes(msgspec.json.encode(taken, enc_hook=str))

    content.publish(images, plan.key, fill)


def try_patches(variant: Variant, lab: Lab, cache: Cache, progress: Progress) -> None:
    """Refuse patches that do not apply before anything slow: PatchError in seconds.

    Does nothing when the image is built. Only the files that the patches name are copied.
    """
    if not variant.revisions or find(variant, lab, cache):
        return
    sources = source.fetch(variant.base, cache, progress)
    with scratch.folder("try", cache.room("tmp")) as tried:
        folder = tried / _TREE
        folder.mkdir()
        inspection.copy_named(sources.folder, variant.revisions, folder)
        series.apply(folder, variant.revisions, Silent())


def unpatched(variant: Variant) -> Variant:
    """The same base and config fragments without any patch: what ``variant`` starts from."""
    parts = ("base", *(f"config:{name}" for name in variant.fragments))
    return replace(variant, name=" + ".join(parts), revisions=())


def find(variant: Variant, lab: Lab, cache: Cache) -> Image | None:
    """The image of ``variant`` if it is built already. Runs no make, fetches nothing."""
    plan = plan_of(variant, lab, cache)
    folder = content.find(cache.room("images"), plan.key)
    return _load(folder, plan) if folder and not whole.image_damage(folder) else None


def plan_key(variant: Variant, lab: Lab, cache: Cache) -> str:
    """The key that the image of ``variant`` has or will have."""
    return plan_of(variant, lab, cache).key


def plan_of(variant: Variant, lab: Lab, cache: Cache) -> Plan:
    """Read the fragments, ask the tools for their versions, make the key. UsageError, MissingTool.

    Fast: nothing is fetched, and a source is only looked at as source.find() does.
    """
    found = source.find(variant.base, cache)
    if isinstance(variant.base.source, ImageSource):
        return Plan(variant, content.digest(_RECIPE, found.key), Merged((), ()), {}, found)
    names = (*variant.base.fragments, *variant.fragments)
    files = kconfig.fragment_files(lab.kernels, names)
    merged = kconfig.merge(kconfig.read_fragment(file) for file in files)
    merged = kconfig.declare(merged, variant.base)
    toolchain = make.toolchain()
    key = content.digest(
        _RECIPE,
        found.key,
        *(f"{tool}: {line}" for tool, line in sorted(toolchain.items())),
        *names,
        *(line.text for line in merged.wanted),
        *(
            f"{revision}/{patch.file.name} {patch.sha256} -C{revision.min_context}"
            for revision in variant.revisions
            for patch in revision.patches
        ),
        *(f"{one.wanted.text} is {one.new or 'absent'}" for one in merged.declared),
        *filter(None, [source.start_version(variant.base, cache)]),
    )
    return Plan(variant, key, merged, toolchain, found)


def _base_tree(plan: Plan, sources: SourceTree, shop: Shop) -> Path:
    """The built tree of an unpatched variant: the objects that patched ones start from."""

    def fill(to: Path) -> None:
        folder = to / _TREE
        tree.clone(sources.folder, folder)
        compile_tree(plan, folder, (), shop)
        # The linker's first tries are a third of what a variant would have to copy.
        for path in folder.glob(".tmp_vmlinux*"):
            path.unlink()

    return content.publish(shop.cache.room("trees"), plan.key, fill) / _TREE


def _image(plan: Plan, sources: SourceTree, base: Path, to: Path, shop: Shop) -> None:
    """Fill ``to`` with the image; what it was built in goes before it is published."""
    if not plan.variant.revisions:
        _collect(plan, base, (), sources, to)
        return
    folder = to / _TREE
    with shop.progress.step(f"tree of {plan.variant.name}"):
        tree.clone(sources.folder, folder)
        patches = series.apply(folder, plan.variant.revisions, shop.progress)
        start = start_of(base, folder, patches, shop)
        tree.lay(sources.folder, start.folder, folder, start.patched)
    with pristine.guarded(sources, shop.cache):
        compile_tree(plan, folder, patches, shop, start)
    _collect(plan, folder, patches, sources, to)
    if _built(folder).steps >= _KEPT_STEPS:
        content.publish(shop.cache.room("trees"), plan.key, lambda kept: _keep(folder, kept))
    if folder.is_dir():
        shutil.rmtree(folder)
    (to / _BUILT).unlink()


@dataclass(frozen=True, slots=True)
class Start:
    """The built tree that a build goes on from."""

    folder: Path
    patched: tuple[str, ...] = ()  # files that patches wrote, there or in the new tree
    changed: tuple[str, ...] = ()  # those of them that are not what they were there


def start_of(base: Path, folder: Path, patches: tuple[AppliedPatch, ...], shop: Shop) -> Start:
    """The base's tree or a kept one of these series: whichever leaves least to be compiled.

    ``folder`` has the patched files. Kept ones are looked at only when a header changes.
    """
    patched, ours = _patched(patches), {patch.series for patch in patches}
    best = _from(base, folder, patched)
    if not any(file.endswith(".h") for file in best.changed):
        return best
    least = tree.dependants(base, best.changed)
    room = shop.cache.room("trees")
    for entry in sorted(file.parent for file in room.glob(f"*/{_BUILT}")):
        with contextlib.suppress(OSError, msgspec.MsgspecError):  # gc, or a damaged one
            built = _built(entry / _TREE)
            known = built.series and ours.issuperset(built.series)
            if built.base != base.parent.name or not known:
                continue
            one = _from(entry / _TREE, folder, (*patched, *built.patched))
            steps = tree.dependants(one.folder, one.changed)
            if steps < least and content.use(room, entry.name):
                best, least = one, steps
    return best


def _from(built: Path, folder: Path, patched: Iterable[str]) -> Start:
    files = tuple(sorted(set(patched)))
    changed = (file for file in files if not tree.same(folder / file, built / file))
    return Start(built, files, tuple(changed))


def _keep(folder: Path, to: Path) -> None:
    """Move a built tree to where later builds find it."""
    for path in folder.glob(".tmp_vmlinux*"):
        path.unlink()
    shutil.copyfile(folder.parent / _BUILT, to / _BUILT)
    folder.rename(to / _TREE)


def _patched(patches: Iterable[AppliedPatch]) -> tuple[str, ...]:
    return tuple(sorted({file for patch in patches for file in patch.files}))


class Built(msgspec.Struct):
    """What a build tells of itself; kept in the tree's folder, beside the tree."""

    seconds: float
    steps: int
    patched: tuple[str, ...] = ()  # files that patches wrote
    series: tuple[str, ...] = ()  # whose patches these were
    base: str = ""  # the key of the tree without them


def _built(folder: Path) -> Built:
    return msgspec.json.decode((folder.parent / _BUILT).read_bytes(), type=Built)


def compile_tree(
    plan: Plan,
    folder: Path,
    patches: tuple[AppliedPatch, ...],
    shop: Shop,
    start: Start | None = None,
) -> None:
    """Configure and make ``folder``. Its log and figures are left beside it.

    After a ``start`` it has a .config already: that is made anew, some twelve seconds, only
    when a file has changed that has a part in it.
    """
    begun = time.monotonic()
    name = f"build-{re.sub(r'[^A-Za-z0-9.@_-]+', '_', plan.variant.name)}-{plan.key}.log"
    log = shop.cache.room("logs") / name
    log.unlink(missing_ok=True)
    maker = make.Maker(folder, log, begun + shop.lab.limits.build, shop.jobs)
    with shop.progress.step(f"build {plan.variant.name}") as step:
        if start and not kconfig.may_change(start.changed):
            kconfig.verify(folder, plan.merged)
        else:
            given = source.start_config(plan.variant.base, shop.cache)
            kconfig.configure(folder, plan.merged, maker.configure, given)
        changed = start.changed if start else _patched(patches)
        memory = shop.cache.room(_STEPS) / _step_key(plan.variant, changed)
        total = _expected_steps(plan.variant, changed, memory, folder)
        steps = maker.build(lambda done: step.advance(done, max(total, done)))
    memory.write_text(str(steps))
    series = tuple(sorted({patch.series for patch in patches}))
    base = plan_of(unpatched(plan.variant), shop.lab, shop.cache).key if patches else ""
    built = Built(time.monotonic() - begun, steps, _patched(patches), series, base)
    (folder.parent / _BUILT).write_bytes(msgspec.json.encode(built))
    shutil.copyfile(log, folder.parent / "build.log")


def _step_key(variant: Variant, changed: Iterable[str]) -> str:
    return content.digest(variant.base.name, variant.name, *changed)


def _expected_steps(variant: Variant, changed: Collection[str], memory: Path, folder: Path) -> int:
    """How many steps make will take: what it took last time, or what depends on the changes."""
    if memory.is_file() and (text := memory.read_text()).isdecimal():
        return int(text)
    if not variant.revisions:
        return variant.base.build_steps
    headers = any(file.endswith(".h") for file in changed)
    return (tree.dependants(folder, changed) if headers else len(changed)) + _LINK_STEPS


def _collect(
    plan: Plan, folder: Path, patches: tuple[AppliedPatch, ...], sources: SourceTree, to: Path
) -> None:
    """Copy what an image is out of the built tree, and write its manifest."""
    for name, path in make.PRODUCTS.items():
        shutil.copyfile(product(folder, path), to / name)
    built = _built(folder)
    if folder.parent != to:
        shutil.copyfile(folder.parent / "build.log", to / "build.log")
    made = Image(
        key=plan.key,
        variant=plan.variant.name,
        folder=to,
        release=_release(folder),
        source_package=sources.package,
        source_version=sources.version,
        patches=patches,
        fragments=(*plan.variant.base.fragments, *plan.variant.fragments),
        toolchain=plan.toolchain,
        bzimage_sha256=hashlib.sha256((to / "bzImage").read_bytes()).hexdigest(),
        code_sha256=elf.code_digest(to / "vmlinux"),
        build_seconds=built.seconds,
        build_steps=built.steps,
    )
    (to / _MANIFEST).write_bytes(msgspec.json.encode(made, enc_hook=str))


def product(folder: Path, name: str) -> Path:
    """A file that the build made. Untrusted code could have left a link to anywhere."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise BuildError(f"make succeeded, and left no file {name} in its tree")
    return path


def _release(folder: Path) -> str:
    release = kconfig.read_inside(folder, "include/config/kernel.release").strip()
    if not _RELEASE.fullmatch(release):
        raise BuildError(f"the kernel's release is not a name: {release[:80]!r}")
    return release


def _load(folder: Path, plan: Plan) -> Image:
    data = (folder / _MANIFEST).read_bytes()
    stored = msgspec.json.decode(data, type=Image, dec_hook=lambda _, text: Path(text))
    # The same content may have been built under another name or ref, or the cache been moved.
    return replace(
        stored,
        folder=folder,
        variant=plan.variant.name,
        source_package=plan.found.package,
        source_version=plan.found.version,
    )
