"""The plug point: what every labeler offers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from alflow.labelers._result import LabelResult
from alflow.labelers._theory import Capabilities, TheorySpec
from alflow.structures import Structure

if TYPE_CHECKING:
    from ase import Atoms
    from pydantic import BaseModel

    from alflow.labelers._worker import WorkerConfig


class RunState(StrEnum):
    """How far a submitted calculation is."""

    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class RunHandle:
    """What :meth:`Labeler.poll` needs to find a submitted calculation again.

    Parameters
    ----------
    directory
        where it runs
    process_id
        operating-system process, where there is one of its own
    scheduler_id
        identifier in a batch system, where there is one
    """

    directory: Path
    process_id: int | None = None
    scheduler_id: str | None = None


@runtime_checkable
class Labeler(Protocol):
    """Computes energy, forces and stress of structures at one theory.

    A labeler is asynchronous by nature: :meth:`prepare` writes the inputs, :meth:`submit` starts the calculation,
    :meth:`poll` looks at it and :meth:`parse` judges the outcome. Each works on the directory alone, so that another
    process can take over between any two of them. :meth:`label` is the convenience over the four.

    Attributes
    ----------
    name
        registered name
    settings_model
        the pydantic model of its settings; unknown keys are forbidden
    capabilities
        what it can compute
    """

    name: str
    settings_model: type[BaseModel]

    @classmethod
    def create(cls, settings: BaseModel, *, worker: WorkerConfig, directory: Path) -> Self:
        """Make it from validated settings; relative paths in them start from ``directory``. Raises ConfigError."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can compute."""
        ...

    def theory(self) -> TheorySpec:
        """Return the resolved physics; the same on every machine that computes the same numbers."""
        ...

    def refuses(self, structure: Structure) -> str | None:
        """Return the reason why this structure cannot be labelled, or None: the pre-flight check."""
        ...

    def prepare(self, structure: Structure, directory: Path) -> None:
        """Write everything the calculation needs into the directory; raises LabelFailure where it is refused."""
        ...

    def submit(self, directory: Path) -> RunHandle:
        """Start the prepared calculation; one that has already finished is not run again."""
        ...

    def poll(self, handle: RunHandle) -> RunState:
        """Return how far the calculation is."""
        ...

    def parse(self, directory: Path) -> LabelResult:
        """Read and judge the outcome; raises LabelFailure with the typed cause."""
        ...

    def label(self, structure: Structure | Atoms, directory: Path | None = None) -> LabelResult:
        """Compute one label; with a directory the inputs and the outcome stay in it. Raises LabelFailure."""
        ...
