"""Housekeeping of a ledger: what dead workers held, what they left running, contradictions, and files to forget."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from alflow.folder.outputs import find_outputs
from alflow.ledger import MAX_DEATHS, Ledger
from alflow.loop._reaper import end_orphans, take_back_jobs

_ATTEMPT = re.compile(r"attempt-\d+")


class UpkeepPolicy(BaseModel):
    """Which files may be forgotten; by default only those that nothing refers to. Labels are never removed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep_committees: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="checkpoints of so many newest committees of each campaign stay; None: all. What an older one "
        "predicted stays in the ledger",
    )
    keep_outputs_days: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="folders of successful calculations are removed after so many days; None: never. Those of failed "
        "ones stay",
    )


@dataclass(frozen=True, kw_only=True)
class UpkeepReport:
    """What was done.

    Parameters
    ----------
    reclaimed
        jobs that went back to the queue
    ended
        numbers of processes that were left running
    problems
        contradictions in the ledger, each with its remedy; none were mended
    committees
        checkpoints that were retired
    outputs
        folders of calculations that were removed
    bytes_freed
        size of the files removed from the ledger's folder, without ``outputs``
    """

    reclaimed: tuple[int, ...]
    ended: tuple[int, ...]
    problems: tuple[str, ...]
    committees: int
    outputs: int
    bytes_freed: int


def upkeep(ledger: Ledger, policy: UpkeepPolicy | None = None, *, max_deaths: int = MAX_DEATHS) -> UpkeepReport:
    """Look after a ledger while others work with it; repeat it as often as you like.

    Parameters
    ----------
    ledger
        of any number of campaigns
    policy
        which files may be forgotten
    max_deaths
        a job that so many workers did not survive is quarantined; ``retries: deaths`` of the workers' files
    """
    policy = policy or UpkeepPolicy()
    reclaimed = take_back_jobs(ledger, max_deaths=max_deaths)
    ended = end_orphans(ledger)
    committees = 0
    if policy.keep_committees is not None:
        committees = sum(ledger.committees.retire(row.id, policy.keep_committees) for row in ledger.campaigns.list())
    outputs = 0 if policy.keep_outputs_days is None else _forget_outputs(ledger, policy.keep_outputs_days)
    freed = ledger.artifacts.prune()
    return UpkeepReport(
        reclaimed=tuple(reclaimed),
        ended=tuple(ended),
        problems=tuple(ledger.check()),
        committees=committees,
        outputs=outputs,
        bytes_freed=freed,
    )


def _forget_outputs(ledger: Ledger, days: float) -> int:
    before = (datetime.fromisoformat(ledger.now()) - timedelta(days=days)).isoformat()
    removed = 0
    for job_id, directory in ledger.queue.output_directories(before):
        path = Path(directory)
        # a worker makes job-7/attempt-1: anything else in the row is not ours to remove
        found = find_outputs(path)
        if found is not None and path.parent.name == f"job-{job_id}" and _ATTEMPT.fullmatch(path.name):
            if found.is_dir():
                shutil.rmtree(found, ignore_errors=True)
            else:
                found.unlink(missing_ok=True)
            removed += not found.exists()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
    return removed
