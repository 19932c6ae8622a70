"""``alflow dedup`` and its work file: the same files after any interruption, one writer, nothing done twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ase.io import write

from alflow.cli import _dedup_steps, _dedup_work
from alflow.cli._dedup_work import WorkFile
from alflow.structures import DuplicatePolicy
from tests.cli.dedup_files import frames, mixed, rattled, table

if TYPE_CHECKING:
    from tests.cli.conftest import Run


PROGRAM = """
    import os, pathlib, sys
    from alflow.cli import _dedup_steps, _dedup_work, main

    _dedup_steps.BATCH = 4
    _dedup_work.COMMIT_SECONDS = {seconds}
    owner = pathlib.Path if {method!r} == "replace" else _dedup_work.WorkFile
    found, calls = getattr(owner, {method!r}), 0

    def counted(*arguments, **keywords):
        global calls
        calls += {method!r} != "replace" or arguments[0].suffix == ".draft"  # others put files in place, too
        if calls == {call}:
            os.kill(os.getpid(), {number})
        return found(*arguments, **keywords)

    setattr(owner, {method!r}, counted)
    sys.argv = ["alflow", "dedup", "all.extxyz", "more.extxyz"]
    main()
"""


def interrupted(
    method: str, call: int, number: signal.Signals, *, seconds: float = 0.0
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that gets a signal just before the n-th call of a method."""
    program = textwrap.dedent(PROGRAM.format(method=method, call=call, number=int(number), seconds=seconds))
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def inputs(alflow: Run) -> dict[str, bytes]:
    """Two files, and what an undisturbed run makes of them."""
    structures = mixed(5)
    write("all.extxyz", structures[:11])
    write("more.extxyz", structures[11:])
    alflow("dedup", "all.extxyz", "more.extxyz")
    return {name: Path(name).rename(f"expected-{name}").read_bytes() for name in ("unique.extxyz", "unique.csv")}


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("add", 2),
        ("add", 5),
        ("begin_grouping", 1),
        ("decide", 9),
        ("replace", 1),
        ("replace", 2),
        ("set_publishing", 2),
    ],
)
def test_killed_anywhere_the_same_command_goes_on(
    alflow: Run, inputs: dict[str, bytes], method: str, call: int
) -> None:
    assert interrupted(method, call, signal.SIGKILL).returncode == -signal.SIGKILL
    assert Path("unique.extxyz.work").exists()
    assert Path("unique.extxyz").exists() is (method == "set_publishing"), "it comes last, and whole"
    outcome = alflow("dedup", "all.extxyz", "more.extxyz")
    assert "continuing from unique.extxyz.work" in outcome.stderr
    assert {name: Path(name).read_bytes() for name in inputs} == inputs
    assert sorted(path.name for path in Path().iterdir() if "expected" not in path.name) == [
        "all.extxyz",
        "more.extxyz",
        "unique.csv",
        "unique.extxyz",
    ]


def test_what_was_done_is_not_done_again(
    alflow: Run, inputs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted("decide", 9, signal.SIGKILL)
    monkeypatch.setattr(_dedup_steps, "fingerprint", None)  # every one is known
    decided: list[int] = []
    decide = WorkFile.decide

    def observed(self: WorkFile, decision: _dedup_work.Decision) -> None:
        decided.append(decision.frame)
        decide(self, decision)

    monkeypatch.setattr(WorkFile, "decide", observed)
    outcome = alflow("dedup", "all.extxyz", "more.extxyz")
    n = len(table())
    assert f"{n} structures, {n} of them by an earlier run" in outcome.stderr
    assert "structures grouped by an earlier run" in outcome.stderr
    assert 0 < len(decided) <= n - 8
    assert len(set(decided)) == len(decided)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_by_a_person(alflow: Run, inputs: dict[str, bytes], number: signal.Signals) -> None:
    """Nothing at all is lost, although the last regular commit would be long ago."""
    done = interrupted("decide", 9, number, seconds=1e9)
    assert done.returncode == 130
    assert done.stderr.endswith("interrupted; the same command continues\n")
    with WorkFile(Path("unique.extxyz.work")) as work:
        assert work.n_decided >= 8
    alflow("dedup", "all.extxyz", "more.extxyz")
    assert {name: Path(name).read_bytes() for name in inputs} == inputs


def test_changed_files_are_read_again(alflow: Run, inputs: dict[str, bytes]) -> None:
    interrupted("replace", 1, signal.SIGKILL)
    write("more.extxyz", [rattled("Au")])
    outcome = alflow("dedup", "more.extxyz")
    assert "more.extxyz has changed since it was read: read again" in outcome.stderr
    assert "all.extxyz is not among the files any more: forgotten" in outcome.stderr
    assert [row["formula"] for row in table()] == ["Au4"]


def test_a_file_that_changes_under_the_command(alflow: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write("all.extxyz", [rattled(), rattled(seed=1)])
    group = _dedup_steps.group_all

    def meanwhile(*arguments: Any) -> None:
        group(*arguments)
        write("all.extxyz", [rattled("Au")])

    monkeypatch.setattr(_dedup_steps, "group_all", meanwhile)
    assert "has changed since it was read" in alflow("dedup", "all.extxyz", code=1).stderr
    assert not Path("unique.extxyz").exists()
    assert not list(Path().glob(".*.draft"))
    monkeypatch.undo()


def test_another_relation_does_not_read_again(alflow: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    structures = mixed()
    write("all.extxyz", structures)
    kept = alflow("dedup", "all.extxyz", "--keep-work", "--json").json()
    assert kept["work"] == "unique.extxyz.work"
    assert "exists already" in alflow("dedup", "all.extxyz", code=1).stderr
    monkeypatch.setattr(_dedup_steps, "fingerprint", None)
    loose = alflow("dedup", "all.extxyz", "--force", "--relation", "same-phase", "--json").json()
    assert loose["read"] == len(structures)
    assert loose["unique"] < kept["unique"]
    assert not Path("unique.extxyz.work").exists()


def test_one_output_has_one_writer(alflow: Run) -> None:
    write("all.extxyz", rattled())
    with WorkFile(Path("unique.extxyz.work")):
        assert "another alflow writes the same output" in alflow("dedup", "all.extxyz", code=1).stderr
    alflow("dedup", "all.extxyz")


def test_work_files_of_others_are_refused(alflow: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write("all.extxyz", rattled())
    Path("unique.extxyz.work").write_bytes(b"no database, but longer than the header of one" * 4)
    assert "is no work file of alflow, or damaged" in alflow("dedup", "all.extxyz", code=1).stderr
    Path("unique.extxyz.work").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(_dedup_work, "_MADE_FOR", "another")
        with WorkFile(Path("unique.extxyz.work")):
            pass
    assert "was left by another version of alflow; remove it" in alflow("dedup", "all.extxyz", code=1).stderr


def test_a_work_file_that_cannot_be_made_is_said(alflow: Run) -> None:
    write("all.extxyz", rattled())
    Path("unique.extxyz.work").mkdir()
    failed = alflow("dedup", "all.extxyz", code=1)
    assert "unique.extxyz.work: unable to open database file; mend that" in failed.stderr


def test_a_full_disk_is_said_and_keeps_what_was_committed(alflow: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write("all.extxyz", mixed(3))
    begin = WorkFile.begin_grouping

    def crowded(self: WorkFile, policy: DuplicatePolicy) -> bool:
        self._connection.execute("CREATE TABLE IF NOT EXISTS filler (content BLOB)")
        self._connection.commit()
        pages = self._connection.execute("PRAGMA page_count").fetchone()[0]
        self._connection.execute(f"PRAGMA max_page_count = {pages}")
        self._connection.execute("INSERT INTO filler VALUES (zeroblob(1000000))")
        return begin(self, policy)

    with monkeypatch.context() as patch:
        patch.setattr(WorkFile, "begin_grouping", crowded)
        failed = alflow("dedup", "all.extxyz", code=1)
    assert "unique.extxyz.work: database or disk is full; mend that, then the same command continues" in failed.stderr
    assert f"{len(frames('all.extxyz'))} of them by an earlier run" in alflow("dedup", "all.extxyz").stderr
