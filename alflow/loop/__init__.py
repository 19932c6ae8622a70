"""The loop: the steps of a round as plain functions over the ledger, the one driver, and the label worker.

A round is train → explore → score → select → queue → label → assess; round 0 designs instead of training. Every step
is idempotent and ends in one transaction, so that a run killed at any instant is continued by the same command.
"""

from alflow.loop._committee import find_committee, open_committee
from alflow.loop._context import CampaignContext, campaign_changes, open_campaign, register_theory, require_elements
from alflow.loop._driver import RunOutcome, RunState, plain_call, round_steps, run
from alflow.loop._folder import FolderServer
from alflow.loop._ingest import IngestReport
from alflow.loop._limits import RunLimits
from alflow.loop._locate import locate_campaign
from alflow.loop._people import (
    ImportedLabel,
    ImportOutcome,
    ImportReport,
    add_structures,
    approve,
    import_labels,
)
from alflow.loop._plan import Plan, PlannedLabel, Status, plan, status
from alflow.loop._reporter import Reporter, SilentReporter
from alflow.loop._upkeep import UpkeepPolicy, UpkeepReport, upkeep
from alflow.loop._worker import LabelWorker, WorkSummary, WorkUntil, work

__all__ = [
    "CampaignContext",
    "FolderServer",
    "ImportOutcome",
    "ImportReport",
    "ImportedLabel",
    "IngestReport",
    "LabelWorker",
    "Plan",
    "PlannedLabel",
    "Reporter",
    "RunLimits",
    "RunOutcome",
    "RunState",
    "SilentReporter",
    "Status",
    "UpkeepPolicy",
    "UpkeepReport",
    "WorkSummary",
    "WorkUntil",
    "add_structures",
    "approve",
    "campaign_changes",
    "find_committee",
    "import_labels",
    "locate_campaign",
    "open_campaign",
    "open_committee",
    "plain_call",
    "plan",
    "register_theory",
    "require_elements",
    "round_steps",
    "run",
    "status",
    "upkeep",
    "work",
]
