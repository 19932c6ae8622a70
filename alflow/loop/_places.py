"""Where the jobs of a folder are, and how they leave it: by renaming, never by being removed."""

from __future__ import annotations

import time
from pathlib import Path

from alflow.folder import keeper
from alflow.folder.layout import DONE, LOST, OPEN, taken_jobs
from alflow.loop._reporter import Reporter


class Places:
    """A folder of jobs as its server sees it, whatever others do there at the same time.

    Parameters
    ----------
    folder
        on a file system that others see too
    report
        whom to tell
    """

    def __init__(self, folder: Path, report: Reporter) -> None:
        self._folder, self._report = folder, report

    def find(self, name: str) -> list[Path]:
        """Where a job is; what is computed counts before what is held, and that before what waits.

        Looked for in the direction in which jobs move, so that none slips by; a job that is given back moves the other
        way, hence the second look.
        """
        waiting, done = self._folder / OPEN / name, self._folder / DONE / name
        found = [waiting] if waiting.exists() else []
        found += taken_jobs(self._folder, name)
        found += [done] if done.exists() else []
        if not found and waiting.exists():
            found = [waiting]
        return found[::-1]

    def put_away(self, path: Path, why: str) -> None:
        """Move a job out of the way, say why, and end what still runs of it on this machine."""
        if not path.exists():
            return
        goal = self._folder / LOST / f"{path.name}-{time.time_ns()}"
        try:
            path.rename(goal)
        except OSError as error:
            if path.exists():  # else somebody took it meanwhile
                self._report.note(f"{path} stays, it cannot be put away: {error}")
            return
        self._report.note(f"{path.name} is put away in {goal.parent.name}/: {why}")
        keeper.end_orphans(goal)

    def age_of(self, path: Path) -> float | None:
        """Seconds since a file was touched, by the clock of the file system that holds it."""
        clock = self._folder / ".clock"
        try:
            clock.touch()
            return clock.stat().st_mtime - path.stat().st_mtime
        except OSError:
            return None
