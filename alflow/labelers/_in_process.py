"""Labelers whose code is a Python call: the directory is a record, not a workplace of another process."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ase import Atoms

from alflow.errors import FailureKind, LabelFailure
from alflow.labelers._protocol import RunHandle, RunState
from alflow.labelers._quality import check_outcome
from alflow.labelers._record import (
    INPUT_FILE,
    OUTCOME_FILE,
    files_in,
    read_input,
    read_outcome,
    write_failure,
    write_input,
    write_outcome,
)
from alflow.labelers._result import LabelResult, RawOutcome
from alflow.labelers._theory import Capabilities, TheorySpec
from alflow.structures import Structure

if TYPE_CHECKING:
    from pydantic import BaseModel

    from alflow.labelers._worker import WorkerConfig


class InProcessLabeler(ABC):
    """Everything of a :class:`~alflow.labelers.Labeler` but the calculation itself, for codes called from Python.

    A subclass gives ``name``, ``settings_model``, :meth:`create`, :attr:`capabilities`, :meth:`theory` and
    :meth:`compute`. An outcome is written into the directory before anything is judged, so that neither a kill nor a
    stricter gate loses it.
    """

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

    @abstractmethod
    def compute(self, structure: Structure, directory: Path | None) -> RawOutcome:
        """Call the code; raises LabelFailure with the typed cause where it fails."""

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

    def submit(self, directory: Path) -> RunHandle:
        """Run the calculation to its end; one that already has an outcome is not run again."""
        structure = self._read_own_input(directory)
        if not (directory / OUTCOME_FILE).exists():
            start = time.perf_counter()
            try:
                outcome = self.compute(structure, directory)
            except LabelFailure as failure:
                write_failure(directory, failure)
            else:
                write_outcome(directory, outcome, time.perf_counter() - start)
        return RunHandle(directory=directory)

    def poll(self, handle: RunHandle) -> RunState:  # noqa: ARG002  submit returns only after the end
        """Return ``finished``: the calculation ran inside :meth:`submit`."""
        return RunState.FINISHED

    def parse(self, directory: Path) -> LabelResult:
        """Judge the recorded outcome; raises LabelFailure."""
        structure = self._read_own_input(directory)
        outcome, seconds = read_outcome(directory)
        return self._judge(structure, outcome, seconds, files_in(directory))

    def label(self, structure: Structure | Atoms, directory: Path | None = None) -> LabelResult:
        """Compute one label; with a directory the inputs and the outcome stay in it.

        Raises
        ------
        LabelFailure
            with the typed cause: refused, not converged, implausible, …
        """
        asked = Structure.from_atoms(structure) if isinstance(structure, Atoms) else structure
        if directory is not None:
            self.prepare(asked, directory)
            self.submit(directory)
            return self.parse(directory)
        self._require_accepted(asked)
        start = time.perf_counter()
        outcome = self.compute(asked, None)
        return self._judge(asked, outcome, time.perf_counter() - start, ())

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

    def _judge(self, asked: Structure, outcome: RawOutcome, seconds: float, files: tuple[str, ...]) -> LabelResult:
        warnings = check_outcome(asked, outcome, self.capabilities)
        return LabelResult(
            structure=asked,
            properties=outcome.properties,
            evidence=outcome.evidence,
            seconds=seconds,
            warnings=warnings,
            files=files,
        )
