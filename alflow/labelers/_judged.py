"""What labelers share that work in a directory: the pre-flight check, the record of what was asked, the gates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from alflow.errors import FailureKind, LabelFailure
from alflow.labelers._quality import check_outcome
from alflow.labelers._record import INPUT_FILE, read_input, write_input
from alflow.labelers._result import LabelResult, RawOutcome
from alflow.labelers._theory import Capabilities, TheorySpec
from alflow.structures import Structure

if TYPE_CHECKING:
    from pydantic import BaseModel

    from alflow.labelers._worker import WorkerConfig


class JudgedLabeler(ABC):
    """The part of a :class:`~alflow.labelers.Labeler` that does not depend on how its code is run."""

    name: str
    settings_model: type[BaseModel]

    @classmethod
    @abstractmethod
    def create(cls, settings: BaseModel, *, worker: WorkerConfig, directory: Path) -> Self:
        """Make it from validated settings."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it can compute."""

    @abstractmethod
    def theory(self) -> TheorySpec:
        """Return the resolved physics."""

    def refuses(self, structure: Structure) -> str | None:
        """Return the reason why this structure cannot be labelled, or None."""
        return self.capabilities.refuses(structure)

    def prepare(self, structure: Structure, directory: Path) -> None:
        """Write the input; a directory of the same calculation is continued, one of another is refused."""
        self._require_accepted(structure)
        fingerprint = self.theory().fingerprint
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / INPUT_FILE).exists():
            earlier, theory = read_input(directory)
            if earlier != structure or theory != fingerprint:
                raise LabelFailure(
                    FailureKind.INCONSISTENT, f"{directory} holds another calculation: give each one its own directory"
                )
            return
        write_input(directory, structure, fingerprint)

    def _require_accepted(self, structure: Structure) -> None:
        reason = self.refuses(structure)
        if reason is not None:
            raise LabelFailure(FailureKind.REFUSED, f"{self.name} cannot label {structure.formula}: {reason}")

    def _read_own_input(self, directory: Path) -> Structure:
        structure, theory = read_input(directory)
        if theory != self.theory().fingerprint:
            raise LabelFailure(
                FailureKind.INCONSISTENT, f"{directory} was prepared for another theory: prepare it anew elsewhere"
            )
        return structure

    def _judge(self, asked: Structure, outcome: RawOutcome, seconds: float, files: Sequence[str]) -> LabelResult:
        warnings = check_outcome(asked, outcome, self.capabilities)
        return LabelResult(
            structure=asked,
            properties=outcome.properties,
            evidence=outcome.evidence,
            seconds=seconds,
            warnings=warnings,
            files=tuple(files),
        )
