"""Look after a ledger as a Prefect flow: leases, orphans, contradictions, files to forget."""

from __future__ import annotations

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from alflow.config import load_campaign
from alflow.flows._artifacts import Artifacts
from alflow.flows._parameters import CampaignName, run_name
from alflow.labelers import load_worker_config
from alflow.ledger import open_ledger
from alflow.loop import UpkeepPolicy, locate_campaign
from alflow.loop import upkeep as look_after


@flow(name="upkeep", flow_run_name=run_name, persist_result=False)
def upkeep(campaign: CampaignName, policy: UpkeepPolicy | None = None) -> State[str]:
    """Look after the ledger of a campaign; a ledger that contradicts itself makes the run fail, so that somebody looks.

    Jobs of workers that died go back to the queue, programs that they left running on this machine are ended, the
    ledger is checked, and files that nothing refers to, or that the policy lets go, are removed.

    Parameters
    ----------
    campaign
        campaign file or its folder on the worker's machine, or the name of a campaign in the ledger that the variable
        ALFLOW_LEDGER names there
    policy
        which files may be forgotten; default: only those that nothing refers to

    Raises
    ------
    ConfigError, LedgerError
        if the campaign file or the ledger cannot be used
    """
    log = get_run_logger()
    loaded = load_campaign(locate_campaign(campaign))
    worker = load_worker_config(directory=loaded.path.parent)
    with open_ledger(loaded.ledger_url, create=False) as ledger:
        report = look_after(ledger, policy, max_deaths=worker.retries.deaths)
        rows = {name: n for name, n in ledger.stats()["rows"].items() if n}
    done = (
        f"{len(report.reclaimed)} jobs taken back, {len(report.ended)} orphans ended, {report.committees} checkpoints "
        f"and {report.outputs} output folders let go, {report.bytes_freed / 1e6:.1f} MB freed"
    )
    lines = [f"# Upkeep of {loaded.config.name}", "", f"{done}.", ""]
    lines += [f"- **Problem:** {problem}" for problem in report.problems] or ["The ledger is sound."]
    lines += ["", "| table | rows |", "|---|---|", *(f"| {name} | {n} |" for name, n in rows.items())]
    artifacts = Artifacts(loaded.config.name, log)
    artifacts.markdown("upkeep", "\n".join(lines) + "\n", f"{loaded.config.name}: the latest upkeep")
    if report.problems:
        for problem in report.problems:
            log.error("%s", problem)
        message = f"{len(report.problems)} problems in the ledger: {report.problems[0]}"
        return Failed(message=message)
    return Completed(message=done, data=done)
