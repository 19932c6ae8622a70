"""What a person sees: on a terminal, in a log, and when asked to be quiet."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from alflow.cli._reporter import ConsoleReporter
from alflow.loop._reporter import Reporter


def console(*, terminal: bool, width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, highlight=False, legacy_windows=False)


def text_of(target: Console) -> str:
    assert isinstance(target.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", target.file.getvalue())


def tell(report: ConsoleReporter) -> None:
    report.round(1, "")
    report.step("train", "")
    report.progress("train", 3, 10, "loss 0.1")
    report.step("train", "4 members on 24 labels")
    report.step("queue", "2 jobs")
    report.table("batch", ("candidate", "why"), [(7, "the least known"), (9, "drawn at random")])
    report.note("job 7: not_converged")
    report.done("the budget of 24 labels is spent")


def test_it_is_what_the_loop_asks_for() -> None:
    assert isinstance(ConsoleReporter(console(terminal=False)), Reporter)


def test_log_has_one_line_per_step() -> None:
    target = console(terminal=False)
    with ConsoleReporter(target) as report:
        tell(report)
    lines = [re.sub(r"\s+", " ", line).strip() for line in text_of(target).splitlines()]
    assert lines[0] == "Round 1"
    assert re.fullmatch(r"train \d\.\d s 4 members on 24 labels", lines[1])
    assert re.fullmatch(r"queue \d\.\d s 2 jobs", lines[2])
    assert lines[3:] == [
        "candidate 7, why the least known",
        "candidate 9, why drawn at random",
        "job 7: not_converged",
        "the budget of 24 labels is spent",
    ]


def test_log_holds_no_control_characters() -> None:
    target = console(terminal=False)
    with ConsoleReporter(target) as report:
        tell(report)
    assert isinstance(target.file, io.StringIO)
    assert "\x1b" not in target.file.getvalue()
    assert "\r" not in target.file.getvalue()


def test_long_steps_say_something_in_a_log() -> None:
    target = console(terminal=False)
    with ConsoleReporter(target, log_interval=0.0) as report:
        report.step("label")
        report.progress("label", 3, 10)
        report.progress("label", 4, None, "of many")
    assert "label 3/10\n" in text_of(target)
    assert "label 4 of many\n" in text_of(target)


def test_terminal_marks_finished_steps() -> None:
    target = console(terminal=True)
    with ConsoleReporter(target) as report:
        tell(report)
    text = text_of(target)
    assert re.search(r"✓ train +\d\.\d s 4 members on 24 labels", text)
    assert "drawn at random" in text


def test_long_results_wrap_in_their_column() -> None:
    target = console(terminal=True, width=60)
    with ConsoleReporter(target) as report:
        report.step("select", "word " * 30)
    lines = text_of(target).rstrip().splitlines()
    assert len(lines) > 2
    assert all(len(line.rstrip()) <= 60 for line in lines)
    assert all(line.startswith(" " * 30) for line in lines[1:])


def test_a_step_that_raises_is_marked() -> None:
    for terminal, mark in ((True, "✗ train"), (False, "train")):
        target = console(terminal=terminal)
        with pytest.raises(KeyboardInterrupt), ConsoleReporter(target) as report:  # noqa: PT012  the raising is the point
            report.step("train")
            raise KeyboardInterrupt
        assert mark in text_of(target)
        assert "stopped here" in text_of(target)


def test_digest_of_a_source_is_not_shown() -> None:
    target = console(terminal=False)
    with ConsoleReporter(target) as report:
        report.step("explore-relax-0a1b2c3d")
        report.step("explore-relax-0a1b2c3d", "12 new")
    assert re.search(r"explore-relax +\d\.\d s  12 new", text_of(target))
    assert "0a1b2c3d" not in text_of(target)


def test_quiet_leaves_notes_and_the_last_word() -> None:
    target = console(terminal=False)
    with ConsoleReporter(target, quiet=True) as report:
        tell(report)
    assert text_of(target).splitlines() == ["job 7: not_converged", "the budget of 24 labels is spent"]


def test_text_of_others_is_never_markup() -> None:
    target = console(terminal=False)
    with ConsoleReporter(target) as report:
        report.note("[red]not[/red] a colour [/nonsense]")
        report.step("[bold]", "[/]")
    assert "[red]not[/red] a colour [/nonsense]" in text_of(target)
    assert "[bold]" in text_of(target)
