"""Compute labels from a ledger's queue as a Prefect flow; several at once share the queue."""

from __future__ import annotations

import time
from typing import Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed

from alflow.config import load_campaign
from alflow.flows._artifacts import Artifacts
from alflow.flows._parameters import CampaignName, Count, Hours, run_name
from alflow.flows._reporter import FlowReporter
from alflow.labelers import load_worker_config
from alflow.ledger import open_ledger
from alflow.loop import LabelWorker, WorkUntil, locate_campaign


@flow(name="label-worker", flow_run_name=run_name, persist_result=False)
def label_worker(
    campaign: CampaignName,
    until: Literal["empty", "idle"] = "empty",
    jobs: Count | None = None,
    hours: Hours | None = None,
) -> State[str]:
    """Compute labels from the queue of a campaign's ledger.

    Every job that this machine can compute is taken, whichever campaign of the ledger asks for it; what may run here is
    decided by the file alflow-worker.yaml beside the campaign file.

    Parameters
    ----------
    campaign
        campaign file or its folder on the worker's machine, or the name of a campaign in the ledger that the variable
        ALFLOW_LEDGER names there
    until
        end when the queue is empty, or was idle for a minute
    jobs, hours
        what this run may do at most; a calculation that is under way is finished

    Raises
    ------
    ConfigError, LedgerError
        if the campaign file or the ledger cannot be used
    """
    log = get_run_logger()
    loaded = load_campaign(locate_campaign(campaign))
    config = load_worker_config(None, directory=loaded.directory)
    artifacts = Artifacts(loaded.config.name, log)
    ends = None if hours is None else time.monotonic() + 3600.0 * hours

    def room() -> int | None:
        return 0 if ends is not None and time.monotonic() >= ends else None

    with open_ledger(loaded.ledger_url, create=False) as ledger:
        worker = LabelWorker(ledger, config, report=FlowReporter(log, artifacts))
        done = worker.run(WorkUntil(until), max_jobs=jobs, room=room)
        left = ledger.queue.open_jobs()
    row = {
        "labelled": done.labelled,
        "failed": done.failed,
        "to be tried again": done.retried,
        "lost to another worker": done.lost,
        "left in the queue": left,
        "seconds": round(done.seconds, 1),
    }
    artifacts.table("labelling", f"{loaded.config.name}: the latest label worker", [row])
    sentence = ", ".join(f"{number} {what}" for what, number in row.items())
    return Completed(message=sentence, data=sentence)
