"""A Prefect server, a work pool and a worker of the tests' own, on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.loop.conftest import make_campaign

__all__ = ["make_campaign"]

MARK = "ALFLOW_TEST_STACK"
"""Every process of a stack inherits this variable, by which left-over ones are found."""
TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(kw_only=True)
class Stack:
    """Prefect, running: what a user has after following the guide to operations."""

    home: Path
    port: int
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "ALFLOW_"))}
        return kept | {
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_LOGGING_LEVEL": "WARNING",
            MARK: self.mark,
        }

    def start(self, name: str, *arguments: str) -> None:
        """Start ``prefect …`` in a process group of its own."""
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "prefect", *arguments],
                env=self.environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self, name: str, sign: signal.Signals = signal.SIGINT) -> None:
        """End one of them as Ctrl-C, or a kill, does."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)

    def alflow(self, *arguments: object, cwd: Path | None = None) -> str:
        """Run a command as a user does, and return what it prints; fails where the command does."""
        return self._run([sys.executable, "-m", "alflow.cli", *map(str, arguments)], cwd)

    def prefect(self, *arguments: object, cwd: Path | None = None) -> str:
        """Run a command of Prefect."""
        return self._run([sys.executable, "-m", "prefect", *map(str, arguments)], cwd)

    def _run(self, command: list[str], cwd: Path | None) -> str:
        place = cwd or self.home
        done = subprocess.run(
            command,
            env=self.environment | {"PWD": str(place), "COLUMNS": "200"},
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def post(self, path: str, content: dict[str, Any]) -> list[dict[str, Any]]:
        """Ask the server's API."""
        found: list[dict[str, Any]] = httpx.post(f"{self.url}/{path}", json=content, timeout=30).json()
        return found

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """The flow runs of a deployment that were due, oldest first."""
        flow, name = deployment.split("/")
        content = {"flows": {"name": {"any_": [flow]}}, "deployments": {"name": {"any_": [name]}}, "limit": 100}
        found = [r for r in self.post("flow_runs/filter", content) if r["state_type"] != "SCHEDULED"]
        return sorted(found, key=lambda run: str(run["expected_start_time"]))

    def run(self, deployment: str, **parameters: object) -> dict[str, Any]:
        """Start a deployment from the command line and wait for its end."""
        known = {run["id"] for run in self.runs(deployment)}
        options = [word for key, value in parameters.items() for word in ("--param", f"{key}={value}")]
        self.prefect("deployment", "run", deployment, *options)

        def done() -> list[dict[str, Any]]:
            return [r for r in self.runs(deployment) if r["id"] not in known and ended(r)]

        run: dict[str, Any] = self.wait(done)[0]
        return run

    def wait(self, look: Callable[[], Any], seconds: float = 240.0) -> Any:
        """Wait until there is something to see."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = look()
            if found:
                return found
            time.sleep(0.5)
        logs = "\n".join(path.read_text()[-2000:] for path in self.home.glob("*.log"))
        raise AssertionError(f"nothing came within {seconds} s\n{logs}")

    def artifacts(self, key: str) -> list[dict[str, Any]]:
        """Versions of an artifact, newest first."""
        return self.post("artifacts/filter", {"artifacts": {"key": {"any_": [key]}}, "sort": "UPDATED_DESC"})

    def left_over(self) -> list[str]:
        """Command lines of processes of this stack that nobody should find: neither server nor worker."""
        known = {process.pid for process in self.processes.values()}
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() not in (entry / "environ").read_bytes():
                    continue
                group = int((entry / "stat").read_text().rpartition(")")[2].split()[2])
                if group not in known:
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except (OSError, ValueError):
                continue
        return found


def ended(run: dict[str, Any]) -> bool:
    """Whether a flow run has come to its end."""
    return run["state_type"] in TERMINAL


@contextlib.contextmanager
def running_stack(home: Path) -> Iterator[Stack]:
    """A server with a pool and a worker for the length of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stack = Stack(home=home, port=port)

    def healthy() -> bool:
        try:
            return httpx.get(f"{stack.url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        stack.start("server", "server", "start", "--host", "127.0.0.1")
        stack.wait(healthy)
        stack.prefect("work-pool", "create", "alflow", "--type", "process")
        stack.start("worker", "worker", "start", "--pool", "alflow")
        yield stack
    finally:
        for name in [n for n in ("worker", "server") if n in stack.processes]:
            stack.stop(name)
    stack.wait(lambda: not stack.left_over(), 30)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack that the tests share."""
    with running_stack(tmp_path_factory.mktemp("prefect")) as running:
        yield running
