# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable

import pytest
from rich.console import Console

from patchlab.commands.ui import Terminal, left, span
from patchlab.progress import Progress


class Time:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def plain() -> tuple[Terminal, Time, Callable[[], list[str]]]:
    out, clock = io.StringIO(), Time()
    console = Console(file=out, width=60)
    return Terminal(console, clock), clock, lambda: out.getvalue().splitlines()


def terminal() -> tuple[Terminal, io.StringIO]:
    out = io.StringIO()
    return Terminal(Console(file=out, force_terminal=True, width=100)), out


def shown(out: io.StringIO) -> str:
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", out.getvalue())


@pytest.mark.parametrize(
    ("done", "total", "elapsed", "expected"),
    [
        (1080, 2700, 240.0, 360.0),
        (2700, 2700, 600.0, 0.0),
        (2800, 2700, 600.0, 0.0),  # more steps than expected
        (0, 2700, 5.0, None),
        (10, 2700, 5.0, None),  # too early to say
        (5, 0, 5.0, None),
    ],
)
def test_time_left(done: float, total: float, elapsed: float, expected: float | None) -> None:
    assert left(done, total, elapsed) == expected


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min"), (3900, "1 h 05 min")]
)
def test_spans_are_for_people(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_plain_lines_say_start_state_and_end() -> None:
    progress, clock, lines = plain()
    with progress, progress.step("build base") as step:
        clock.now += 240
        step.advance(1080, 2700)
        clock.now += 360
    assert lines() == [
        "[   0.0s] build base: started",
        "[ 240.0s] build base: 40 % (1080/2700), about 6 min left",
        "[ 600.0s] build base: done in 10 min",
    ]


def test_a_step_says_no_more_than_one_line_in_ten_seconds() -> None:
    progress, clock, lines = plain()
    with progress.step("build base") as step:
        for second in range(60):
            clock.now += 1
            step.advance(second + 1, 60)
    assert len(lines()) == 2 + 6


def test_two_steps_do_not_take_each_other_s_lines() -> None:
    progress, clock, lines = plain()
    with progress.step("boot 1") as first, progress.step("boot 2") as second:
        clock.now += 11
        first.advance(1, 2)
        second.advance(1, 2)
    assert sum("50 %" in line for line in lines()) == 2


def test_without_a_total_nothing_is_claimed() -> None:
    progress, clock, lines = plain()
    with progress.step("fetch") as step:
        clock.now += 60
        step.advance(17, 0)
    assert len(lines()) == 2


def test_a_failed_step_says_so_and_the_error_goes_on() -> None:
    progress, clock, lines = plain()
    with pytest.raises(ValueError, match="no"), progress.step("build base"):
        clock.now += 5
        raise ValueError("no")
    assert lines()[-1] == "[   5.0s] build base: failed in 5 s"


def test_markup_in_titles_and_notes_is_text() -> None:
    progress, _, lines = plain()
    progress.note("config:[bold]x[/bold] [/red] " + "long " * 30)
    assert lines() == ["[   0.0s] config:[bold]x[/bold] [/red] " + "long " * 30]


def test_threads_write_whole_lines() -> None:
    progress, _, lines = plain()

    def work(number: int) -> None:
        for _ in range(20):
            with progress.step(f"boot {number}"):
                progress.note(f"note {number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines()) == 8 * 20 * 3
    pattern = r"\[   0\.0s\] (note \d|boot \d: (started|done in 0 s))"
    assert all(re.fullmatch(pattern, line) for line in lines())


def test_a_terminal_shows_a_bar_with_share_and_time_left() -> None:
    progress, out = terminal()
    with progress, progress.step("build base [x]") as step:
        step.advance(1080, 2700)
        progress.note("which draws the bar again")
    text = shown(out)
    assert "build base [x]" in text
    assert "40 %" in text
    assert "left" in text
    assert text.rstrip().endswith("✓ build base [x]: done in 0 s")


def test_a_note_stays_above_the_bar() -> None:
    progress, out = terminal()
    with progress, progress.step("build base"):
        progress.note("[not markup] fits with offset")
    assert shown(out).index("[not markup]") < shown(out).index("✓ build base")


def test_parallel_steps_each_end_with_their_own_line() -> None:
    progress, out = terminal()
    with progress:
        with progress.step("boot 1"), progress.step("boot 2"):
            pass
        with progress.step("boot 3"):
            pass
    assert re.findall(r"✓ boot (\d): done", shown(out)) == ["2", "1", "3"]


def test_an_interrupt_gives_the_terminal_back() -> None:
    progress, out = terminal()
    with pytest.raises(KeyboardInterrupt), progress, progress.step("build base"):
        raise KeyboardInterrupt
    assert out.getvalue().rfind("\x1b[?25h") > out.getvalue().rfind("\x1b[?25l")  # cursor shown
    assert "build base: interrupted" in shown(out)


def test_it_is_what_rooms_ask_for() -> None:
    progress: Progress = plain()[0]
    with progress.step("x") as step:
        step.advance(1, 2)
