"""The result file of a replay: one JSON line per finished step, so that a killed replay continues where it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from alflow.errors import UserError


class Record:
    """Append-only lines of finished steps; a line that was cut off by a kill is dropped.

    Parameters
    ----------
    path
        the file; None keeps everything in memory
    settings
        what the replay was asked for; a file of another replay is refused

    Raises
    ------
    UserError
        if the file belongs to a replay with other settings or data
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self._path = path
        self._steps: dict[tuple[str, int], list[dict[str, Any]]] = {}
        lines = _complete_lines(path) if path is not None and path.exists() else []
        if lines:
            known = lines[0].get("settings")
            if known != settings:
                if (known or {}).get("format") != settings.get("format"):
                    raise UserError(f"{path} was written by another alflow; give another file")
                different = sorted(k for k in {*settings, *(known or {})} if (known or {}).get(k) != settings.get(k))
                raise UserError(
                    f"{path} belongs to a replay with other {', '.join(different)}; "
                    "give another file, or the same arguments"
                )
            for line in lines[1:]:
                self._steps.setdefault((line["strategy"], line["seed"]), []).append(line)
            self._rewrite(lines)
        else:
            self._rewrite([{"settings": settings}])

    def steps(self, strategy: str, seed: int) -> list[dict[str, Any]]:
        """Finished steps of one curve, in order."""
        return list(self._steps.get((strategy, seed), []))

    def add(self, step: dict[str, Any]) -> None:
        """Store one finished step, on disk before this returns."""
        self._steps.setdefault((step["strategy"], step["seed"]), []).append(step)
        if self._path is None:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(step) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _rewrite(self, lines: list[dict[str, Any]]) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        fresh.replace(self._path)


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise UserError(f"{path}:{number} is not a line of a replay ({error}); move the file away") from error
    return found
