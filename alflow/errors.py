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

    @property
    def suggestion(self) -> str:
        """What a person may do about jobs that ended this way; reports, `alflow status` and the queue all say this."""
        return _SUGGESTIONS[self]


_SUGGESTIONS = {
    FailureKind.NOT_CONVERGED: "Ease convergence: other mixing, more steps, a little smearing.",
    FailureKind.REFUSED: "The labeler does not do such structures; `filters` can keep them from being selected.",
    FailureKind.INCONSISTENT: "The code changed the geometry it was given: check its input for symmetrisation.",
    FailureKind.IMPLAUSIBLE: "The results are not physical: look at the geometries, then at the settings of the code.",
    FailureKind.CRASHED: "Read the log of one attempt (`alflow queue explain` says where it lies), and run the code by "
    "hand on that structure.",
    FailureKind.WALL_TIME: "Give jobs more time (`wall_seconds` in alflow-worker.yaml), or limit the number of atoms "
    "(`filters.max_atoms`).",
    FailureKind.MEMORY: "Run fewer jobs at once on that machine, give them more memory (`memory_gb` in "
    "alflow-worker.yaml), or limit the number of atoms.",
    FailureKind.DISK_FULL: "Make room on the worker's disk, then `alflow queue retry`; `outputs` in alflow-worker.yaml "
    "says what is kept of calculations.",
    FailureKind.MISSING_FILE: "A pseudopotential or binary is missing on the worker: `alflow check` says which.",
    FailureKind.TRUNCATED: "Outputs end in the middle: look at the worker's disk and network file system, and whether "
    "something ends programs from outside; then `alflow queue retry`.",
    FailureKind.UNAVAILABLE: "The code could not be started on the worker: `alflow check` says why.",
    FailureKind.WORKER_DIED: "Workers die within these jobs: watch memory, then `alflow queue retry`.",
    FailureKind.CANCELLED: "A person withdrew it; `alflow queue retry` asks for it again.",
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
