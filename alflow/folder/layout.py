"""Names, hashes and records in a folder of jobs; both sides use them."""

import contextlib
import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

OPEN, TAKEN, DONE, BAD, LOST = "open", "taken", "done", "bad", "lost"
JOB, WORKER, HEARTBEAT, RESULT, REASON = "job.json", "worker.json", "heartbeat", "result.json", "reason.json"
LOCAL_RUN = "run.local.json"
"""What the machine that computes has made of ``run.json``: its own command and limits."""
VERSION = 1
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says where a disk is full, or a user's share of it."""

Manifest = dict[str, list[Any]]


class FolderError(Exception):
    """A folder that is not what it says, or cannot be used; the message says what, and how to mend it."""


def read_json(path: Path) -> dict[str, Any] | None:
    """Content of a record; None where it is missing, damaged or no record."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a record whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def digest(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def manifest(folder: Path, *, without: frozenset[str] = frozenset()) -> Manifest:
    """Size in bytes and hash of every regular file below a folder, by its relative name."""
    found: Manifest = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not path.is_symlink() and name not in without and not name.endswith(".partial"):
            found[name] = [path.stat().st_size, digest(path)]
    return found


def files_of(record: dict[str, Any] | None) -> Manifest | None:
    """The manifest in a record; None where there is none, or something that is no manifest."""
    files = None if record is None else record.get("files")
    if not isinstance(files, dict):
        return None
    for entry in files.values():
        if not (isinstance(entry, list) and [type(value) for value in entry] == [int, str]):
            return None
    return files


def differences(folder: Path, wanted: Manifest) -> list[str]:
    """What of a manifest is missing or different in a folder, in words; files beyond it do not count."""
    wrong = []
    for name, (size, expected) in wanted.items():
        path = folder / name
        try:
            if path.stat().st_size != size:
                wrong.append(f"{name} has {path.stat().st_size} bytes instead of {size}")
            elif digest(path) != expected:
                wrong.append(f"{name} has another content")
        except OSError:
            wrong.append(f"{name} is missing")
    return wrong


def make(folder: Path) -> None:
    """Make the four places of a folder of jobs."""
    for place in (OPEN, TAKEN, DONE, BAD):
        (folder / place).mkdir(parents=True, exist_ok=True)


def move(job: Path, goal: Path) -> bool:
    """Rename a job; False where somebody else was first, or there is one already."""
    with contextlib.suppress(OSError):
        if not goal.exists():
            job.rename(goal)
            return True
    return False


def taken_name(name: str, worker: str) -> str:
    """Name under which a worker holds a job: its own, so that it can never touch what another worker holds."""
    return f"{name}@{worker}"


def taken_jobs(folder: Path, name: str) -> list[Path]:
    """Where a job is held by workers: one place at most, unless one of them was given up."""
    return sorted((folder / TAKEN).glob(f"{name}@*"))


def last_run(job: Path) -> Path | None:
    """The folder of a job's last run."""
    runs = [p for p in job.glob("run-*") if p.name.removeprefix("run-").isdigit()]
    return max(runs, key=lambda p: int(p.name.removeprefix("run-")), default=None)
