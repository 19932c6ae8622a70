"""Commands in folders that may not be written: one line that says what to do, and no hindrance to looking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.permissions import run_held_back, unwritable

if TYPE_CHECKING:
    from tests.cli.conftest import Run

SMALL = """\
name: small
elements: [Cu]
ledger: sqlite:///small.db
theory: {labeler: emt}
round0: {prototypes: [fcc], n_spread: 3}
sources: [{kind: perturb, n: 3}]
"""
#: several commands in one process
COMMANDS = """
import json, sys
from typer.testing import CliRunner
from alflow.cli._app import app
for words in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, words, prog_name="alflow")
    print(json.dumps([result.exit_code, result.stdout, result.stderr]))
"""


def _held_back(folder: Path, *commands: str) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of commands in a folder, of somebody whom permission bits hold back."""
    done = run_held_back("-c", COMMANDS, json.dumps([command.split() for command in commands]), folder=folder)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_what_a_colleague_finished_can_be_looked_at(alflow: Run, tmp_path: Path) -> None:
    file, own = tmp_path / "shared" / "campaign.yaml", tmp_path / "own"
    for folder in (file.parent, own):
        folder.mkdir()
    file.write_text(SMALL)
    alflow("run", file, "--rounds", "1", "--quiet")
    before = sorted(file.parent.iterdir())
    looking = [
        f"status {file}",
        f"ls -C {file}",
        f"show 1 -C {file}",
        f"report {file} -o page.html",
        f"export -o labels.extxyz -C {file}",
        f"queue explain -C {file}",
        f"committee ls -C {file}",
        f"db backup -C {file} -o mine.db",
    ]
    writing = [f"run {file}", f"pin 1 --reason new -C {file}"]
    with unwritable(file.parent, *(path for path in before if path.is_file())):
        outcomes = _held_back(own, *looking, *writing, f"check {file}")
    assert [code for code, *_ in outcomes[: len(looking)]] == [0] * len(looking), outcomes
    assert all((own / name).stat().st_size > 0 for name in ("page.html", "labels.extxyz", "mine.db"))
    for code, _, stderr in outcomes[len(looking) : -1]:
        assert code == 1
        assert f"error: {file.parent} cannot be written, so the ledger" in stderr
    code, stdout, _ = outcomes[-1]
    assert code == 1
    assert f"✗ ledger     {file.parent} cannot be written, so the ledger" in stdout
    assert sorted(file.parent.iterdir()) == before


def test_a_campaign_is_not_begun_where_nobody_may_write(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    (folder / "campaign.yaml").write_text(SMALL)
    with unwritable(folder):
        outcomes = _held_back(folder, "run", "plan", "check")
    for code, stdout, stderr in outcomes:
        assert f"the folder {folder} cannot be written, so no ledger small.db can be made there" in stdout + stderr
        assert "does not exist yet" not in stdout
        assert code == 1
