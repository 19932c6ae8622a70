"""The one exception tree of alflow. A message says what was wrong, where, and what to do.

AlflowError
├── UserError                      something the user can mend; the CLI prints it in a line or two, exit code 1
│   ├── ConfigError                campaign or worker file: file, line, key, nearest valid key
│   ├── StructureError             a structure that is not finite, plausible or readable
│   ├── SelectionError             a query such as ``Ni,u>1`` that cannot be parsed
│   ├── NotFoundError              a campaign, candidate, job or theory that the ledger does not hold
│   ├── TransitionError            a change of state that the ledger does not allow
│   └── TheoryError                labels of two theories would mix, or a theory is unknown
├── LedgerError                    the database itself
│   ├── LedgerUnavailableError     it cannot be reached now; nothing is lost, the same call may be repeated
│   ├── LedgerVersionError         its schema is older or newer than this alflow
│   ├── LeaseLostError             somebody else took over; nothing was written
│   └── CampaignBusyError          another run drives this campaign
├── PotentialError                 training or prediction
│   └── CheckpointError            a checkpoint that is damaged, foreign or of another version
└── LabelFailure                   a calculation without a trustworthy result; carries a FailureKind
"""

from __future__ import annotations

from enum import StrEnum


class AlflowError(Exception):
    """Everything alflow raises on purpose."""


class UserError(AlflowError):
    """Something the user can mend; the message says how."""


class ConfigError(UserError):
    """A campaign or worker file that cannot be used."""


class StructureError(UserError):
    """A structure that is not finite, plausible or readable."""


class SelectionError(UserError):
    """A query over candidates that cannot be parsed."""


class NotFoundError(UserError):
    """Something asked for by name or id that the ledger does not hold."""


class TransitionError(UserError):
    """A change of state that the ledger does not allow."""


class TheoryError(UserError):
    """Labels of two theories would mix, or a theory is unknown."""


class LedgerError(AlflowError):
    """The database cannot be used as it is."""


class LedgerUnavailableError(LedgerError):
    """The database cannot be reached now; whether a transaction that was being committed took effect is unknown."""


class LedgerVersionError(LedgerError):
    """The schema of the ledger is older or newer than this alflow."""


class LeaseLostError(LedgerError):
    """The lease was taken over by somebody else; nothing was written."""


class CampaignBusyError(LedgerError):
    """Another run drives this campaign."""


class PotentialError(AlflowError):
    """Training or prediction failed."""


class CheckpointError(PotentialError):
    """A checkpoint that is damaged, foreign or of another version."""


class FailureKind(StrEnum):
    """Why a calculation gave no trustworthy result."""

    NOT_CONVERGED = "not_converged"
    REFUSED = "refused"
    INCONSISTENT = "inconsistent"
    IMPLAUSIBLE = "implausible"
    CRASHED = "crashed"
    WALL_TIME = "wall_time"
    MEMORY = "memory"
    DISK_FULL = "disk_full"
    MISSING_FILE = "missing_file"
    TRUNCATED = "truncated"
    UNAVAILABLE = "unavailable"
    WORKER_DIED = "worker_died"
    CANCELLED = "cancelled"

    @property
    def infrastructure(self) -> bool:
        """True where the machine failed and not the physics, so that a retry elsewhere may succeed."""
        return self in {
            FailureKind.WALL_TIME,
            FailureKind.MEMORY,
            FailureKind.DISK_FULL,
            FailureKind.TRUNCATED,
            FailureKind.UNAVAILABLE,
            FailureKind.WORKER_DIED,
        }


class LabelFailure(AlflowError):  # noqa: N818  a failed calculation is an outcome, not a programming error
    """A calculation without a trustworthy result.

    Attributes
    ----------
    kind
        the typed cause
    message
        what a person should know, with the evidence
    """

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message
