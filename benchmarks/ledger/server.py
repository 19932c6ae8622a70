"""A private PostgreSQL server for the length of a benchmark, with its default settings."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def find_programs() -> Path | None:
    """Folder of the newest PostgreSQL server's programs on this machine."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    elsewhere = shutil.which("initdb")
    if found:
        return found[-1].parent
    return Path(elsewhere).resolve().parent if elsewhere else None


@contextmanager
def private_server(programs: Path) -> Iterator[str]:
    """Start a server on a free loopback port; yield the URL of an empty database."""
    home = Path(tempfile.mkdtemp(prefix="alflow-benchmark-"))
    log = home.parent / f"{home.name}.log"
    prefix: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses root
        owner = "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"
        shutil.chown(home, owner)
        prefix = ["runuser", "-u", owner, "--"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def call(program: str, *arguments: str) -> None:
        with log.open("a") as handle:
            subprocess.run(
                [*prefix, str(programs / program), *arguments], check=True, cwd=home, stdout=handle, stderr=handle
            )

    data = str(home / "data")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories=''"
    try:
        call("initdb", "-D", data, "-A", "trust", "-U", getpass.getuser(), "-E", "UTF8", "--locale=C")
        call("pg_ctl", "-D", data, "-w", "-o", options, "-l", str(home / "server.log"), "start")
        try:
            yield f"postgresql+psycopg://{getpass.getuser()}@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-D", data, "-w", "-m", "fast", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)
        log.unlink(missing_ok=True)
