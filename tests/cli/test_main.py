"""The console script as a process: speed, exit codes, signals."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import alflow

HEAVY = ("torch", "pymatgen", "prefect", "fastapi", "sqlalchemy", "ase", "numpy", "scipy", "rich.markdown")


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ALFLOW_")}
    return subprocess.run(
        [sys.executable, "-m", "alflow.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment,
        timeout=60,
    )


def cpu_seconds(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run(*arguments).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_is_quick() -> None:
    """The best of five: a machine with other work slows any single one."""
    assert min(cpu_seconds("--help") for _ in range(5)) < 0.3


@pytest.mark.parametrize("arguments", [["--help"], ["ls", "--help"], ["queue", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    program = f"""
        import sys
        from alflow.cli import main
        sys.argv = ["alflow", *{arguments!r}]
        try:
            main()
        except SystemExit as end:
            assert end.code in (0, None), end.code
        heavy = [name for name in {HEAVY!r} if name in sys.modules]
        assert not heavy, heavy
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_version() -> None:
    assert run("--version").stdout == f"alflow {alflow.__version__}\n"


def test_usage_errors_end_with_two() -> None:
    for arguments in (["lss"], ["ls", "--no-such-option"], ["why"], ["why", "seventeen"], ["worker", "--until", "tea"]):
        done = run(*arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert done.stdout == ""
        assert "Traceback" not in done.stderr


def test_user_errors_are_a_line_on_stderr(tmp_path: Path) -> None:
    done = run("ls", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: no campaign file in ")
    assert "alflow init" in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_debug_gives_the_traceback(tmp_path: Path) -> None:
    done = run("--debug", "ls", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "UserError" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_command_ends_cleanly(number: signal.Signals) -> None:
    """Whatever a command is doing: one line, exit code 130, no traceback."""
    program = """
        import sys, time
        import alflow.config

        def busy(directory):
            sys.stdout.write("busy\\n")
            sys.stdout.flush()
            time.sleep(60)

        alflow.config.find_campaign_file = busy
        from alflow.cli import main
        sys.argv = ["alflow", "ls"]
        main()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "interrupted; the same command continues\n"


def test_interrupted_before_a_command_runs() -> None:
    program = """
        import builtins, os, signal, sys
        from alflow.cli import main
        found = builtins.__import__

        def interrupted(name, *arguments, **keywords):
            if name == "alflow.cli._app":
                os.kill(os.getpid(), signal.SIGTERM)
            return found(name, *arguments, **keywords)

        builtins.__import__ = interrupted
        sys.argv = ["alflow", "--help"]
        main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 130
    assert done.stderr == "interrupted; the same command continues\n"


def test_a_bug_keeps_its_traceback() -> None:
    program = """
        import sys
        import alflow.config

        def broken(directory):
            raise ZeroDivisionError("a bug")

        alflow.config.find_campaign_file = broken
        from alflow.cli import main
        sys.argv = ["alflow", "ls"]
        main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "ZeroDivisionError: a bug" in done.stderr
    assert "bug in alflow" in done.stderr


def test_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m alflow.cli ls --help | head -1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_shell_completion_offers_commands() -> None:
    environment = {**os.environ, "_ALFLOW_COMPLETE": "complete_bash", "COMP_WORDS": "alflow st", "COMP_CWORD": "1"}
    program = "from alflow.cli import main; import sys; sys.argv = ['alflow']; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert done.stdout.split() == ["status"], done.stderr
