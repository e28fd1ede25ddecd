# SPDX-License-Identifier: GPL-2.0-or-later
"""The scanner against logs of real 6.12 guests, and logs written after the kernel's own formats."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchlab.errors import LostInstrument, UsageError
from patchlab.guests import console
from patchlab.record import Finding, Outcome

LOGS = Path(__file__).parents[1] / "data" / "console"
TODAY = date(2026, 11, 21)
SYSCALL = "do_syscall_64 < entry_SYSCALL_64_after_hwframe"


def lines(name: str) -> list[str]:
    return (LOGS / f"{name}.log").read_bytes().decode().split("\n")


def prints(name: str) -> list[str]:
    return [finding.fingerprint for finding in console.scan(lines(name))]


MMAP = "__mmap_region < mmap_region < do_mmap < vm_mmap_pgoff"
ABORT = "fuse_wait_aborted < fuse_sb_destroy < fuse_kill_sb_anon"
GETATTR = f"security_inode_getattr < vfs_getattr < {SYSCALL}"
MKWRITE = "fuse_page_mkwrite < do_page_mkwrite < do_wp_page"

EXPECTED: dict[str, list[str]] = {
    "clean": [],
    "no-match": [],
    "no-match-unstamped": [],
    "oops-null": [f"oops: {GETATTR}"],
    "oops-colour": [f"oops: {GETATTR}"],
    "oops-gpf": [f"oops: {GETATTR}"],
    "oops-bug": [f"oops: clear_inode < {SYSCALL}"],
    "oops-panic": [f"oops: {GETATTR}", "panic: Kernel panic - not syncing: Fatal exception"],
    "oops-6.1": [
        "oops: fuse_put_request < fuse_dev_do_write < fuse_dev_write < do_iter_readv_writev",
        "oops: fuse_calc_ratio < fuse_bdi_init < fuse_fill_super_common",
        "oops: xfs_iext_lookup_extent < xfs_bmapi_read < xfs_read_iomap_begin",
        "oops: fuse_readdir_recurse < fuse_readdir",
        "panic: Kernel panic - not syncing: Fatal exception in interrupt",
    ],
    "int3-gone": [
        "oops: key_set_index_key < search_nested_keyrings < keyring_search_rcu < keyring_search"
        " < look_up_user_keyrings",
        "panic: Kernel panic - not syncing: Fatal exception in interrupt",
    ],
    "panic-init": [
        "panic: do_exit < do_group_exit < __x64_sys_exit_group < x64_sys_call < do_syscall_64"
    ],
    "panic-sysrq": [
        "panic: sysrq_handle_crash < __handle_sysrq < write_sysrq_trigger"
        " < proc_reg_write < vfs_write"
    ],
    "warn": [f"warn: drop_nlink < {SYSCALL}"],
    "warn-newer": [
        f"warn: {MKWRITE} < __handle_mm_fault < handle_mm_fault",
        "warn: fuse_direct_mmap < fuse_file_mmap < mmap_region",
    ],
    "refcount": [f"refcount: {SYSCALL}"],
    "list-bug": [
        "list corruption: list_add corruption. next->prev should be prev (#), but was #. (next=#).",
        f"oops: {SYSCALL}",
    ],
    "list-warn": [
        "list corruption: fuse_remove_pending_req < request_wait_answer"
        " < __fuse_simple_request < fuse_flush < filp_flush"
    ],
    "kasan": [f"kasan: fuse_file_mmap < {MMAP}"],
    "kfence": [
        "kfence: fuse_dev_do_write < fuse_dev_write < do_iter_readv_writev < vfs_writev < do_writev"
    ],
    "kmsan": [
        "kmsan: fuse_writepage_finish < fuse_writepage_end < fuse_request_end"
        " < fuse_dev_do_write < fuse_dev_write"
    ],
    "ubsan": [
        "ubsan: fuse_setup_one_mapping < fuse_iomap_begin < iomap_iter < dax_iomap_rw < vfs_read",
        f"ubsan: xfs_next_bit < xfs_buf_item_log_segment < xfs_trans_log_buf < {SYSCALL}",
    ],
    "lockdep-atomic": [f"lockdep: {SYSCALL}"],
    "lockdep-sleeping": [
        "lockdep: __mutex_lock < fuse_direct_io_open < fuse_finish_open"
        " < fuse_open < do_dentry_open"
    ],
    "lockdep-circular": [
        "lockdep: __mutex_lock < fuse_page_mkwrite_prepare < fuse_page_mkwrite"
        " < do_page_mkwrite < do_wp_page"
    ],
    "lockdep-misc": [
        "lockdep: down_write_nested < xfs_ilock < xfs_direct_map_fault"
        " < __xfs_filemap_fault < do_shared_fault",
        "lockdep: _raw_spin_lock < fuse_queue_interrupt < fuse_timeout"
        " < handle_softirqs < run_ksoftirqd",
        f"lockdep: fuse_backing_lookup < fuse_passthrough_mmap < fuse_file_mmap < {SYSCALL}",
        f"lockdep: _raw_spin_unlock < fuse_file_io_release < fuse_release_common < {SYSCALL}",
        f"lockdep: kfree < fuse_file_put < fuse_release_common < {SYSCALL}",
        "lockdep: WARNING: lock held when returning to user space!",
        f"lockdep: __mutex_lock < fuse_set_nowrite < fuse_do_setattr < {SYSCALL}",
    ],
    "rcu-stall": [
        f"rcu stall: {ABORT} < deactivate_locked_super < cleanup_mnt",
        f"rcu stall: {ABORT} < deactivate_locked_super < cleanup_mnt",
        f"rcu stall: {ABORT}",
    ],
    "hung-task": [f"hung task: {SYSCALL}"] * 5,
    "soft-lockup": [f"soft lockup: delay_tsc < {SYSCALL}"] * 2,
    "hard-lockup": [
        "hard lockup: _raw_spin_lock_irqsave < fuse_request_end < fuse_dev_do_write"
        " < fuse_dev_write < vfs_writev",
        "panic: watchdog_hardlockup_check < watchdog_buddy_check_hardlockup"
        " < watchdog_timer_fn < __hrtimer_run_queues",
    ],
    "workqueue-lockup": [
        "workqueue lockup: BUG: workqueue lockup - pool cpus=# node=# flags=# nice=# stuck for #s!"
    ],
    "kmemleak": [
        "kmemleak: kmemleak: # new suspected memory leaks (see /sys/kernel/debug/kmemleak)"
    ],
    "bad-page": [f"bad page: {SYSCALL}"],
    "bad-map": [
        "bad page: zap_present_ptes < zap_pte_range < unmap_page_range < unmap_vmas < exit_mmap",
        "bad page: BUG: Bad rss-counter state mm:# type:MM_FILEPAGES val:#",
        "bug: BUG: non-zero pgtables_bytes on freeing mm: #",
    ],
    "slab": [
        "slab: free_to_partial_list < kmem_cache_free < fuse_free_inode < rcu_do_batch < rcu_core",
        "slab: get_partial_node < ___slab_alloc < __kmalloc_cache_noprof < fuse_simple_background",
    ],
    "oom": [
        "oom: Out of memory: Killed process # (init) total-vm:#kB, anon-rss:#kB, file-rss:#kB,"
        " shmem-rss:#kB, UID:# pgtables:#kB oom_score_adj:#"
    ],
    "ext4": [
        "ext4: EXT4-fs error (device vda): __ext4_find_entry:#: inode ##: comm init:"
        " checksumming directory block #"
    ],
    "xfs": [
        "xfs: XFS (vda): Metadata CRC error detected at xfs_agf_read_verify+#/#, xfs_agf block #",
        'xfs: XFS (vda): metadata I/O error in "xfs_read_agf+#/#" at daddr # len # error #',
    ],
    "xfs-shutdown": [
        "xfs: xfs_free_ag_extent < __xfs_free_extent < xfs_extent_free_finish_item"
        " < xfs_defer_finish_one < xfs_defer_finish_noroll",
        "xfs: XFS: Assertion failed: ip->i_nblocks == #, file: fs/xfs/xfs_inode.c, line: #",
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_report_is_found_once_and_nothing_else(name: str) -> None:
    assert prints(name) == EXPECTED[name]


def test_no_log_is_without_expectation() -> None:
    assert {file.stem for file in LOGS.glob("*.log")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_finding_points_at_its_line(name: str) -> None:
    log = lines(name)
    for finding in console.scan(log):
        raw = re.sub(r"\x1b\[[\d;]*m", "", log[finding.line - 1])
        assert finding.title in raw
        assert any(finding.title in line for line in finding.excerpt[:6])
        assert len(finding.excerpt) <= console.EXCERPT
        assert "\x1b" not in "".join(finding.excerpt)


def test_an_excerpt_starts_with_what_warn_was_told_to_say_and_ends_at_the_marker() -> None:
    _, second = console.scan(lines("warn-newer"))
    assert second.excerpt[0].endswith("refusing to map 3 pages beyond the end")
    assert second.excerpt[-1].endswith("---[ end trace 0000000000000000 ]---")


def test_other_cpus_and_user_space_are_kept_out_of_a_report() -> None:
    first, _ = console.scan(lines("warn-newer"))
    text = "\n".join(first.excerpt)
    assert "virtio_net" not in text
    assert "user space" not in text


def test_the_whole_lockdep_report_is_read_though_the_excerpt_is_short() -> None:
    (finding,) = console.scan(lines("lockdep-circular"))
    assert len(finding.excerpt) == console.EXCERPT
    assert "Call Trace:" not in "\n".join(finding.excerpt)
    assert "fuse_page_mkwrite" in finding.fingerprint


def test_a_warning_in_a_loop_is_kept_ten_times() -> None:
    log = lines("warn")
    assert len(console.scan(log * 30)) == console.REPEATS


def test_a_crash_after_many_warnings_is_still_seen() -> None:
    log = lines("warn") * 30 + lines("oops-null")
    assert console.worst(console.scan(log)) is Outcome.CRASHED


# ---------------------------------------------------------------- outcome


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("clean", Outcome.PASSED),
        ("no-match", Outcome.PASSED),
        ("oops-null", Outcome.CRASHED),
        ("panic-init", Outcome.CRASHED),
        ("hard-lockup", Outcome.CRASHED),
        ("warn", Outcome.SPLAT),
        ("kmemleak", Outcome.SPLAT),
        ("oom", Outcome.SPLAT),
    ],
)
def test_worst(name: str, outcome: Outcome) -> None:
    assert console.worst(console.scan(lines(name))) is outcome


def test_a_log_without_a_kernel_is_an_error() -> None:
    console.require_kernel_log(lines("clean"))
    with pytest.raises(LostInstrument, match="empty"):
        console.require_kernel_log(["", "\r"])
    with pytest.raises(LostInstrument, match="it is not a kernel's log") as caught:
        console.require_kernel_log(["qemu: could not load kernel"])
    assert "console=ttyS0" in caught.value.hint


# ---------------------------------------------------------------- known splats

ENTRY = """
[[splat]]
pattern = "drop_nlink"
kind = "warn"
reason = "counted twice on purpose"
link = "https://example.org/1"
until = 2026-12-31
"""


def known(tmp_path: Path, text: str, today: date = TODAY) -> tuple[console.KnownSplat, ...]:
    file = tmp_path / "known-splats.toml"
    file.write_text(text)
    return console.load_known(file, today)


def test_a_known_splat_is_shown_and_does_not_count(tmp_path: Path) -> None:
    (finding,) = console.scan(lines("warn"), known(tmp_path, ENTRY), TODAY)
    assert finding.known == "counted twice on purpose"
    assert console.worst([finding]) is Outcome.PASSED


def test_it_does_not_cover_another_kind_or_another_place(tmp_path: Path) -> None:
    entries = known(tmp_path, ENTRY.replace('"warn"', '"kasan"')) + known(
        tmp_path, ENTRY.replace("drop_nlink", "inc_nlink")
    )
    (finding,) = console.scan(lines("warn"), entries, TODAY)
    assert console.worst([finding]) is Outcome.SPLAT


@pytest.mark.parametrize("today", [date(2027, 1, 1), date.max])
def test_it_stops_to_hold_after_its_last_day(tmp_path: Path, today: date) -> None:
    (finding,) = console.scan(lines("warn"), known(tmp_path, ENTRY), today)
    assert finding.known == ""


def test_a_crash_cannot_be_known() -> None:
    finding = Finding("oops", "Oops", 1, "oops: x", (), known="we know")
    assert console.worst([finding]) is Outcome.CRASHED


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (('"counted twice on purpose"', '" "'), 5, "'reason' is empty"),
        (('"https://example.org/1"', '""'), 6, "'link' is empty"),
        (("2026-12-31", "2026-11-20"), 7, "ended on 2026-11-20"),
        (('"warn"', '"oops"'), 4, "oops cannot be excused"),
        (('"warn"', '"wran"'), 4, "no such kind: wran"),
        (('"drop_nlink"', '"drop_("'), 3, "not a regular expression"),
        (("reason =", "raeson ="), 5, "unknown key 'raeson'"),
        (("2026-12-31", '"for ever"'), 7, "a date without quotes"),
    ],
)
def test_a_bad_entry_is_named_with_file_and_line(
    tmp_path: Path, change: tuple[str, str], line: int, said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        known(tmp_path, ENTRY.replace(*change))
    assert f"known-splats.toml:{line}: " in str(caught.value)
    assert said in f"{caught.value} {caught.value.hint}"


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'until' is missing"):
        known(tmp_path, ENTRY.replace("until = 2026-12-31\n", ""))


def test_the_shipped_file_is_sound() -> None:
    shipped = Path(__file__).parents[2] / "kernels" / "known-splats.toml"
    console.load_known(shipped)
    example = re.findall(r"^#   (.*)$", shipped.read_text(), re.MULTILINE)
    assert "[[splat]]" in example


def test_the_example_in_the_shipped_file_loads(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "kernels" / "known-splats.toml"
    example = "\n".join(re.findall(r"^#   (.*)$", shipped.read_text(), re.MULTILINE))
    (entry,) = known(tmp_path, example, date(2026, 1, 1))
    assert entry.kind == "lockdep"


# ---------------------------------------------------------------- while the guest runs

CRASHES = ["oops-null", "oops-colour", "oops-panic", "oops-6.1", "panic-init", "hard-lockup"]


def fed(data: bytes, size: int) -> list[str]:
    watch = console.Watch()
    told = [watch.feed(data[at : at + size]) for at in range(0, len(data), size)]
    return [kind for kind in told if kind]


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("size", [7, 1 << 20])
def test_the_watch_tells_what_the_scan_finds(name: str, size: int) -> None:
    data = (LOGS / f"{name}.log").read_bytes()
    kinds = {finding.kind for finding in console.scan(lines(name))} & console.FATAL
    told = fed(data, size)
    if size == 7:
        assert set(told) == kinds
    else:
        assert told == ([max(kinds)] if kinds else [])
    assert len(told) == len(set(told))


@pytest.mark.parametrize("name", CRASHES)
def test_the_watch_does_not_wait_for_the_end_of_the_line(name: str) -> None:
    data = (LOGS / f"{name}.log").read_bytes()
    first = next(f for f in console.scan(lines(name)) if f.kind in console.FATAL)
    title = first.title.encode()
    upto = data.index(title) + len(title)
    assert fed(data[:upto], 64) == [first.kind]
    assert fed(data[: data.index(title)], 64) == []


def test_a_line_that_never_ends_costs_no_memory_and_hides_no_panic() -> None:
    watch = console.Watch()
    for _ in range(200):
        assert watch.feed(b"progress ....... " * 100) == ""
    assert watch.feed(b"[    9.000001] Kernel panic - not syncing: at last") == "panic"


# ---------------------------------------------------------------- any text at all

WORDS = st.sampled_from(
    [line for name in ("kasan", "oops-panic", "slab", "list-warn") for line in lines(name)]
    + ["\x1b[", "Call Trace:", "</TASK>", " <NMI>", "------------[ cut here ]------------"]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.text(), WORDS), max_size=40))
def test_scan_never_raises_and_counts_lines(text: list[str]) -> None:
    for finding in console.scan(text):
        assert 1 <= finding.line <= len(text)
        assert finding.kind in console.KINDS
        assert finding.fingerprint.startswith(f"{finding.kind}: ")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=20))
def test_the_watch_never_raises(chunks: list[bytes]) -> None:
    watch = console.Watch()
    for chunk in chunks:
        assert watch.feed(chunk) in {"", "oops", "panic"}


REPORTS = ["kasan", "kfence", "oops-null", "ubsan", "list-bug", "slab", "xfs", "bad-map"]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(REPORTS),
    st.integers(1, 99_999_999),
    st.integers(1, 0xFFFF),
    st.integers(1, 4_000_000),
)
def test_fingerprints_do_not_hang_on_times_addresses_and_pids(
    name: str, seconds: int, address: int, pid: int
) -> None:
    def change(line: str) -> str:
        line = re.sub(r"^(.*?)\[ *\d+(\.\d{6}\])", rf"\1[{seconds:5d}\2", line, count=1)
        line = re.sub(r"0x[0-9a-f]+", hex(address), line)
        line = re.sub(r"\bf{3,4}[0-9a-f]{12}\b", f"ffff{address:012x}", line)
        line = re.sub(r"(PID: |python3[/:]|pid[ =])\d+", rf"\g<1>{pid}", line)
        return re.sub(r"\[ *T\d+\]", f"[{f'T{pid}':>6}]", line)

    changed = console.scan([change(line) for line in lines(name)])
    assert [finding.fingerprint for finding in changed] == prints(name)
