"""The ledger: campaigns, candidates, labels and jobs as rows of one SQL database (SQLite or PostgreSQL).

The only place that speaks SQL. Everything leaves it as a frozen row with times in UTC ISO 8601; every change of state
is one transaction, checked against the allowed transitions, and leaves a reason a person can read. Configuration is
stored as opaque JSON, so the ledger knows no floor above it.
"""

from alflow.ledger._campaigns import driver_text
from alflow.ledger._claims import MAX_DEATHS
from alflow.ledger._columns import CandidateColumn, ColumnKind
from alflow.ledger._copy import CopyReport, copy_ledger
from alflow.ledger._copy_files import CopyProgress
from alflow.ledger._engine import why_unwritable
from alflow.ledger._ledger import Ledger, open_ledger, upgrade_ledger
from alflow.ledger._rows import (
    ArtifactRow,
    AttemptRow,
    CampaignRow,
    CandidateRow,
    ClaimedJob,
    CommitteeLabel,
    CommitteeRow,
    EquationRow,
    EventRow,
    HullRow,
    JobRow,
    LabelRow,
    NewCandidate,
    NewScore,
    RoundRow,
    ScoreRow,
    StepRow,
    TheoryRow,
    Why,
)
from alflow.ledger._standing import FailureCount, JobStanding, QueueStanding, RequestRow, SeenWorker
from alflow.ledger._states import (
    HELD_JOBS,
    KEPT_CANDIDATES,
    OPEN_JOBS,
    AttemptState,
    CampaignState,
    CandidateState,
    JobState,
    LabelKind,
    LabelQuality,
    RoundState,
    StepState,
    Stream,
)
from alflow.ledger._theories import theory_name
from alflow.ledger._upkeep import backup_ledger, check_ledger
from alflow.ledger._worker import WorkerIdentity, is_alive

__all__ = [
    "HELD_JOBS",
    "KEPT_CANDIDATES",
    "MAX_DEATHS",
    "OPEN_JOBS",
    "ArtifactRow",
    "AttemptRow",
    "AttemptState",
    "CampaignRow",
    "CampaignState",
    "CandidateColumn",
    "CandidateRow",
    "CandidateState",
    "ClaimedJob",
    "ColumnKind",
    "CommitteeLabel",
    "CommitteeRow",
    "CopyProgress",
    "CopyReport",
    "EquationRow",
    "EventRow",
    "FailureCount",
    "HullRow",
    "JobRow",
    "JobStanding",
    "JobState",
    "LabelKind",
    "LabelQuality",
    "LabelRow",
    "Ledger",
    "NewCandidate",
    "NewScore",
    "QueueStanding",
    "RequestRow",
    "RoundRow",
    "RoundState",
    "ScoreRow",
    "SeenWorker",
    "StepRow",
    "StepState",
    "Stream",
    "TheoryRow",
    "Why",
    "WorkerIdentity",
    "backup_ledger",
    "check_ledger",
    "copy_ledger",
    "driver_text",
    "is_alive",
    "open_ledger",
    "theory_name",
    "upgrade_ledger",
    "why_unwritable",
]
