# SPDX-License-Identifier: GPL-2.0-or-later
"""`make prove`: what a check's ``red`` claims, what need not be shown again, and the pages."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import pytest

from patchlab import config, proc
from patchlab.errors import UsageError
from patchlab.guests.command_line import GUEST_CODE
from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.record import BootKind, CheckInfo, Outcome
from patchlab.runs import features
from tests import prove
from tests.proving import desk, evidence, seen_red
from tests.proving.debug import debug
from tests.proving.evidence import Argued, Boot, CleanBuild, Prefix, Shown
from tests.proving.patches import patches
from tests.report import sample_run

PLANTED = Path(__file__).parent / "planted" / "patches"
FAULT = re.compile(r'^\+\t\[\w+\]\t+= "([\w-]+)",$', re.MULTILINE)
NO_FAULT = "none"  # the switch's own word


def check(red: str, name: str = "B3", feature: str = "fuse_writable_mmap") -> CheckInfo:
    return CheckInfo(name, feature, "msync waits", "fsync(2)", red)


def shown(**changes: object) -> Shown:
    whole = Shown(
        key="k1",
        check="B3",
        variant="planted@v1",
        options=("fuse.plant=early-fsync",),
        image="abc123",
        expected=Outcome.FAILED,
        outcome=Outcome.FAILED,
        seen="FSYNC while WRITEs were unanswered",
        boot=Outcome.PASSED,
        reason="",
        commit="04749a7",
        when="2026-11-21T12:00:00+00:00",
    )
    return msgspec.structs.replace(whole, **changes)


GREEN = shown(key="k2", variant="base", options=(), expected=Outcome.PASSED, outcome=Outcome.PASSED)


# ---------------------------------------------------------------- what is claimed


@pytest.mark.parametrize(
    ("red", "variant", "options", "expected"),
    [
        ("planted@v1 fuse.plant=x", "planted@v1", ("fuse.plant=x",), Outcome.FAILED),
        ("planted@v1 a.b=1 c=2", "planted@v1", ("a.b=1", "c=2"), Outcome.FAILED),
        ("a@v1 + b@v2 x.y=z", "a@v1 + b@v2", ("x.y=z",), Outcome.FAILED),
        ("a@v1", "a@v1", (), Outcome.FAILED),
        ("fuse-writable-mmap@control", "fuse-writable-mmap@control", (), Outcome.UNSUPPORTED),
    ],
)
def test_red_names_an_image_and_kernel_options(
    red: str, variant: str, options: tuple[str, ...], expected: Outcome
) -> None:
    (case,) = seen_red.red_cases(check(red))
    assert (case.variant, case.options, case.expected) == (variant, options, expected)


@pytest.mark.parametrize(
    ("feature", "expected"),
    [("fuse_writable_mmap", Outcome.FAILED), ("fuse_direct_mmap", Outcome.UNSUPPORTED)],
)
def test_on_the_base_a_check_fails_where_the_base_has_the_feature(
    feature: str, expected: Outcome
) -> None:
    (case,) = seen_red.red_cases(check("base", feature=feature))
    assert (case.variant, case.expected) == ("base", expected)


@pytest.mark.parametrize("red", ["fuse.plant=x", "a@v1 x=1 quiet", "a@v1 x=1;", " ", "; a@v1"])
def test_another_form_of_red_names_the_check(red: str) -> None:
    with pytest.raises(UsageError, match=r"check B3: red says") as caught:
        seen_red.red_cases(check(red))
    assert "NAME=VALUE" in caught.value.hint


def test_each_fault_is_shown_and_then_the_same_check_on_the_base() -> None:
    both = check("p@v1 f.plant=a; p@v1 f.plant=b")
    found = seen_red.cases([both, check("", "B99")])
    assert [(case.variant, case.options, case.expected) for case in found] == [
        ("p@v1", ("f.plant=a",), Outcome.FAILED),
        ("p@v1", ("f.plant=b",), Outcome.FAILED),
        ("base", (), Outcome.PASSED),
    ]


def test_every_shipped_check_names_an_image_of_the_planted_lab() -> None:
    lab = config.load(desk.LAB)
    for one in features.catalogue().checks:
        for case in seen_red.red_cases(one):
            variant = config.find_variant(lab, case.variant)
            named = {lab.series[revision.series].feature for revision in variant.revisions}
            assert named <= {one.feature}, one.id
        assert seen_red.red_cases(one), f"{one.id} is unproved"


def test_every_planted_fault_is_claimed_by_a_check_and_no_other_is() -> None:
    claimed: dict[str, set[tuple[str, str]]] = {}  # series@revision: (fault, check)
    for case in seen_red.cases(features.catalogue().checks):
        for option in case.options:
            (place,) = re.findall(r"planted-[\w-]+@\w+", case.variant)
            claimed.setdefault(place, set()).add((option.partition("=")[2], case.check.id))
    for file in PLANTED.glob("*/series.toml"):
        named: set[tuple[str, str]] = set()
        for order in file.parent.glob("*/series"):
            patches = sorted(order.parent.glob("*.patch"))
            faults = {name for patch in patches for name in FAULT.findall(patch.read_text())}
            here = claimed[f"{file.parent.name}@{order.parent.name}"]
            assert {fault for fault, _ in here} == faults - {NO_FAULT}
            named |= here
        # The series' own list, for people.
        listed = re.findall(r"^#   ([\w-]+) +([ABDP]\d+) ", file.read_text(), re.MULTILINE)
        assert set(listed) == named


def test_the_planted_lab_is_the_shipped_one_but_for_its_series() -> None:
    planted, lab = config.load(desk.LAB), config.load(desk.REPOSITORY / "lab.toml")
    assert planted.kernels.resolve() == lab.kernels.resolve()
    same = ("machine", "sampling", "limits")
    assert {n: getattr(planted, n) for n in same} == {n: getattr(lab, n) for n in same}
    assert set(planted.series) - set(lab.series) == {
        file.parent.name for file in PLANTED.glob("*/series.toml")
    }


# ---------------------------------------------------------------- what is kept


def test_only_what_held_and_is_still_wanted_is_not_shown_again() -> None:
    green = shown(key="k3", outcome=Outcome.PASSED)
    splat = shown(key="k4", boot=Outcome.SPLAT, reason="WARNING: fs/fuse/file.c")
    before = [shown(), green, splat, shown(key="old image")]
    assert list(evidence.kept(before, ["k4", "k3", "k1"])) == ["k1"]


def test_what_was_shown_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "evidence" / "seen-red.json"
    assert evidence.load(file, Shown) == []
    evidence.store(file, "seen-red", [shown(), GREEN])
    assert evidence.load(file, Shown) == [shown(), GREEN]
    assert [path.name for path in file.parent.iterdir()] == ["seen-red.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"shown": [{"key": 1}]}', "{}"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "boots.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"boots\.json"):
        evidence.load(file, Boot)


def test_the_key_follows_the_agents_code_but_not_other_features(tmp_path: Path) -> None:
    folder = tmp_path / "guest"
    shutil.copytree(GUEST_CODE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = desk.agent_code(folder, "virtio_pmem")

    def after_change_to(name: str) -> str:
        with (folder / name).open("a") as file:
            file.write("# changed\n")
        return desk.agent_code(folder, "virtio_pmem")

    assert before == desk.agent_code(GUEST_CODE, "virtio_pmem")
    assert after_change_to("features/fuse_writable_mmap.py") == before
    assert after_change_to("hostile.py") == before  # the feature imports it nowhere
    seen = [before]
    for name in ("features/virtio_pmem_times.py", "features/virtio_pmem.py", "libc.py", "start.sh"):
        seen.append(after_change_to(name))
    assert len(set(seen)) == 5


def test_the_key_follows_what_the_feature_takes_from_another(tmp_path: Path) -> None:
    folder = tmp_path / "guest"
    shutil.copytree(GUEST_CODE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = desk.agent_code(folder, "map_direct")
    with (folder / "features/virtio_pmem.py").open("a") as file:
        file.write("# changed\n")
    assert desk.agent_code(folder, "map_direct") != before


def test_a_boot_of_one_check_becomes_a_case() -> None:
    record = next(b for b in sample_run.sample_run().boots if b.kind is BootKind.CHECK)
    (case,) = seen_red.red_cases(check("p@v1 f.plant=a", "B2"))
    made = seen_red.from_record("k", case, record, "04749a7")
    result = next(one for one in record.checks if one.id == "B2")
    assert (made.seen, made.outcome, made.boot) == (result.seen, result.outcome, record.outcome)
    assert (made.image, made.when) == (record.image_key, record.started)
    # The sample passes B2, so on an image that is to be red this is what is wrong.
    assert not made.held
    assert evidence.problem(made).startswith("B2 on p@v1 f.plant=a: passed, not failed: ")


def test_a_kernel_that_complains_of_something_else_is_no_proof() -> None:
    splat = shown(boot=Outcome.SPLAT, reason="WARNING: CPU: 0")
    assert not splat.held
    assert "splat boot: WARNING" in evidence.problem(splat)


# ---------------------------------------------------------------- pages


def test_the_page_counts_and_names_what_is_unproved() -> None:
    checks = [check("p@v1 x=1"), check("", "B99"), check("p@v1 x=2", "B4")]
    stayed_green = shown(check="B4", key="k5", outcome=Outcome.PASSED)
    green = msgspec.structs.replace(GREEN, check="B4", when="2026-11-23T00:00:00+00:00")
    every = {"k1", "k2", "k5"}
    page = evidence.seen_red_page([shown(), GREEN, stayed_green, green], checks, every)
    assert "1 of 3 checks proved, by 4 cases, 2 of them red." in page
    assert "Shown 2026-11-21 to 2026-11-23, by the lab at `04749a7`." in page
    assert "Unproved: B99, B4." in page
    assert "| B3 | `planted@v1` | `fuse.plant=early-fsync` | failed | passed on `base` |" in page
    assert (
        "| B4 | `planted@v1` | `fuse.plant=early-fsync` | passed (!) | passed on `base` |" in page
    )
    assert "**not as claimed:** `B4 on planted@v1 fuse.plant=early-fsync: passed, not" in page


def test_a_check_that_was_not_seen_green_is_not_proved() -> None:
    checks = [check("p@v1 x=1")]
    assert evidence.unproved([shown()], checks) == ["B3"]
    assert evidence.unproved([GREEN], checks) == ["B3"]
    assert evidence.unproved([shown(), GREEN], checks) == []


def test_what_was_shown_with_earlier_code_stays_and_is_marked() -> None:
    today = {"k8": ("B3", "planted@v1", ("fuse.plant=early-fsync",), "failed")}
    assert evidence.earlier([shown(), GREEN], today) == {"k8": shown()}
    page = evidence.seen_red_page([shown(), GREEN], [check("p@v1 x=1")], {"k2", "k8"})
    assert "| failed (earlier code) | passed on `base` |" in page
    assert "1 of 1 checks proved" in page
    assert "1 of the cases were shown with" in page
    assert "With today's, 0 of 1 checks are proved." in page
    again = evidence.seen_red_page([shown(), GREEN], [check("p@v1 x=1")], {"k1", "k2"})
    assert "earlier code" not in again and "changed since" not in again


def test_what_a_guest_said_stays_inside_its_quotes() -> None:
    hostile = "a`b\n# heading\n</code><script>\x1b[31m" + "x" * 5000
    page = evidence.seen_red_page([shown(seen=hostile), GREEN], [check("p@v1 x=1")], {"k"})
    (quoted,) = [text for text in page.splitlines() if "script" in text]
    assert quoted.startswith("  `a'b # heading </code><script>")
    assert quoted.count("`") == 2
    assert len(quoted) < 700
    assert "\x1b" not in page


def boot(number: int, outcome: Outcome = Outcome.PASSED, key: str = "k", **counts: int) -> Boot:
    return Boot(
        key=key,
        number=number,
        outcome=outcome,
        reason="" if outcome is Outcome.PASSED else "QEMU exited with 1",
        checks=counts or {"passed": 12},
        ready_seconds=12.5,
        seconds=31.0,
        commit="04749a7",
        when="2026-11-21T12:00:00+00:00",
    )


def test_a_row_goes_on_but_not_past_a_bad_boot() -> None:
    good = [boot(1), boot(2)]
    assert evidence.row(good, "k") == good
    assert evidence.row([*good, boot(3, Outcome.LOST)], "k") == []
    assert evidence.row([*good, boot(3, failed=1, passed=11)], "k") == []
    assert evidence.row(good, "another image") == []


def test_the_page_of_boots_counts_the_lost_ones() -> None:
    page = evidence.boots_page([boot(1), boot(2, Outcome.LOST), boot(3)], "abc123")
    assert "3 check boots of `base` (image `abc123`) in a row" in page
    assert "2 good, 1 lost." in page
    assert "| 2 | lost | 12 passed | 12.5 s | 31.0 s | 2026-11-21T12:00:00+00:00 |" in page


def test_the_page_of_builds_says_whether_the_bytes_are_the_same() -> None:
    when = "2026-11-21T12:00:00+00:00"
    same = CleanBuild("k", "p@v1", "aa", "aa", 150, 2500, 1800.0, "04749a7", when)
    assert "The second bzImage has the same bytes." in evidence.clean_build_page(same)
    other = msgspec.structs.replace(same, clean="bb")
    assert "| from clean source | `bb` |" in evidence.clean_build_page(other)
    assert "the same bytes" not in evidence.clean_build_page(other)


# ---------------------------------------------------------------- the command


def test_the_commit_says_when_more_than_the_evidence_differs(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=A", "-c", "user.email=a@localhost")
        return proc.run(["git", "-C", str(tmp_path), *who, *words], deadline=20).output.strip()

    git("init", "--quiet")
    (tmp_path / "lab.toml").write_text("1\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    commit = git("rev-parse", "--short=12", "HEAD")
    evidence.write(tmp_path / "docs" / "evidence" / "boots.md", "new\n")
    assert desk.lab_commit(tmp_path) == commit
    (tmp_path / "lab.toml").write_text("2\n")
    assert desk.lab_commit(tmp_path) == f"{commit}-dirty"


def test_outside_a_checkout_the_commit_is_unknown(tmp_path: Path) -> None:
    assert desk.lab_commit(tmp_path).startswith("unknown")


def test_an_unknown_step_is_a_usage_error_that_lists_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        prove.main(["seen-green"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "seen-green" in said
    assert all(step in said for step in prove.STEPS)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["patches", "--only", "map-direct@v7"], "nothing there is named map-direct@v7"),
        (["debug", "--only", "map-direct@v6-asposted"], "named map-direct@v6-asposted"),
        (["seen-red", "--only", "D1,D99"], "nothing there is named D99"),
        (["patches", "--only", "D1"], "nothing there is named D1"),
        (["seen-red", "boots", "--only", "D1"], "boots cannot be made in part"),
    ],
)
def test_only_refuses_what_would_be_nothing(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prove.main(argv) == UsageError.exit_code
    assert said in capsys.readouterr().err


PREFIX = Prefix(
    key="of another image",
    series="map-direct",
    revision="v9",
    base="linux-6.12",
    patch=1,
    subject="locks: tell the holders",
    image="abc123",
    outcome=Outcome.PASSED,
    reason="",
    commit="04749a7",
    when="2026-11-21T12:00:00+00:00",
)


def test_what_only_leaves_out_is_kept_as_it_was_shown(tmp_path: Path) -> None:
    lab = config.load(desk.LAB)
    proving = desk.Proving(
        lab, Cache(tmp_path), Silent(), tmp_path, tmp_path, "04749a7", frozenset({"map-direct@v7"})
    )
    bad = msgspec.structs.replace(PREFIX, patch=2, outcome=Outcome.SPLAT, reason="WARNING")
    gone = msgspec.structs.replace(PREFIX, patch=99)
    elsewhere = msgspec.structs.replace(PREFIX, base="linux-6.12-cloud")
    evidence.store(tmp_path / "patches.json", "patches", [PREFIX, bad, gone, elsewhere])
    assert patches(proving) == ["map-direct@v9, patch 2 on linux-6.12: splat: WARNING"]
    assert evidence.load(tmp_path / "patches.json", Prefix) == [PREFIX, bad]
    assert "locks: tell the holders" in (tmp_path / "patches.md").read_text()


def test_the_debug_kernels_that_only_leaves_out_stay(tmp_path: Path) -> None:
    lab = config.load(desk.LAB)
    proving = desk.Proving(
        lab, Cache(tmp_path), Silent(), tmp_path, tmp_path, "04749a7", frozenset({"none"})
    )
    good = Argued(
        key="k", variant="map-direct@v9 + config:debug", image="abc123", outcome=Outcome.PASSED,
        reason="", checks={"D1": (Outcome.PASSED, 1.0, "maps")}, findings=(), seconds=280.0,
        commit="04749a7", when="2026-11-21T12:00:00+00:00",
    )  # fmt: skip
    bad = msgspec.structs.replace(
        good, variant="map-direct@v6 + config:debug", outcome=Outcome.SPLAT, reason="lockdep"
    )
    gone = msgspec.structs.replace(good, variant="map-direct@v5 + config:debug")
    evidence.store(tmp_path / "debug.json", "debug", [good, gone, bad])
    assert debug(proving) == ["map-direct@v6 + config:debug: splat boot: lockdep"]
    assert evidence.load(tmp_path / "debug.json", Argued) == [bad, good]


def test_the_page_of_patches_names_what_is_missing_and_what_was_shown_earlier() -> None:
    other = msgspec.structs.replace(PREFIX, patch=2, key="old")
    keys = {PREFIX.place: PREFIX.key, other.place: "new"}
    keys |= {("map-direct", "v9", "linux-6.12-cloud", count): f"c{count}" for count in (1, 2)}
    page = evidence.patches_page([PREFIX, other], keys)
    assert "2 of 4 kernels shown, 2 of them good, 1 of them earlier" in page
    assert "- **not shown:** map-direct@v9 on linux-6.12-cloud (2)" in page
    assert (
        "| map-direct@v9 | linux-6.12 | 1 | `locks: tell the holders` | `abc123` | passed |" in page
    )
    assert "| passed (earlier) |" in page
    whole = evidence.patches_page([PREFIX], {PREFIX.place: PREFIX.key})
    assert "1 of 1 kernels shown, 1 of them good. Shown" in whole
    assert "not shown" not in whole


def test_a_variant_that_does_not_exist_is_reported_with_its_check(tmp_path: Path) -> None:
    lab = config.load(desk.LAB)
    proving = desk.Proving(lab, Cache(tmp_path), Silent(), tmp_path, tmp_path, "04749a7")
    (case,) = seen_red.red_cases(check("planted-virtio-pmem@v9 dax.plant=x"))
    with pytest.raises(UsageError, match="check B3: red: no revision 'v9'"):
        seen_red._variant(proving, case)
