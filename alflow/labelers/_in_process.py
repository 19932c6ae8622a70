"""Labelers whose code is a Python call: the directory is a record, not a workplace of another process."""

from __future__ import annotations

import time
from abc import abstractmethod
from pathlib import Path

from ase import Atoms

from alflow.errors import LabelFailure
from alflow.labelers._judged import JudgedLabeler
from alflow.labelers._protocol import RunHandle, RunState
from alflow.labelers._record import OUTCOME_FILE, files_in, read_outcome, write_failure, write_outcome
from alflow.labelers._result import LabelResult, RawOutcome
from alflow.structures import Structure


class InProcessLabeler(JudgedLabeler):
    """Everything of a :class:`~alflow.labelers.Labeler` but the calculation itself, for codes called from Python.

    A subclass gives ``name``, ``settings_model``, :meth:`create`, :attr:`capabilities`, :meth:`theory` and
    :meth:`compute`. An outcome is written into the directory before anything is judged, so that neither a kill nor a
    stricter gate loses it.
    """

    @abstractmethod
    def compute(self, structure: Structure, directory: Path | None) -> RawOutcome:
        """Call the code; raises LabelFailure with the typed cause where it fails."""

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
