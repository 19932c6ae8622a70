"""What the command-line tests share: a way to run commands in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command did."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        import json

        return json.loads(self.stdout)


Run = Callable[..., Outcome]


@pytest.fixture
def alflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in an empty directory of its own, as a shell would without any ALFLOW_ variable."""
    for name in ("ALFLOW_LEDGER", "ALFLOW_CAMPAIGN", "ALFLOW_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, code: int | None = 0) -> Outcome:
        from alflow.cli._app import app

        result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="alflow")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        outcome = Outcome(code=result.exit_code, stdout=result.stdout, stderr=result.stderr)
        if code is not None:
            assert outcome.code == code, f"exit code {outcome.code}\n{outcome.stdout}\n{outcome.stderr}"
        return outcome

    return run
