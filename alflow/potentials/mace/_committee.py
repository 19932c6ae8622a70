"""A committee of MACE models behind the Committee protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from alflow.potentials._core import CHUNK_BYTES, stress_from_virial
from alflow.potentials._distance import FeatureDistance
from alflow.potentials._geometry import EdgeList
from alflow.potentials._given import as_structures
from alflow.potentials._prediction import Prediction
from alflow.potentials.mace._engine import ModuleEngine
from alflow.structures import element_symbol

if TYPE_CHECKING:
    from ase import Atoms

    from alflow.potentials._adapter import PredictingEvaluator
    from alflow.potentials._calculator import CommitteeCalculator
    from alflow.potentials._calibration import Calibration
    from alflow.potentials._geometry import AtomTable
    from alflow.potentials._report import TrainingReport
    from alflow.potentials._targets import Targets
    from alflow.potentials.mace._spec import MaceSpec
    from alflow.structures import Structure


@dataclass(frozen=True, kw_only=True, eq=False)
class MaceCore:
    """What a committee of MACE models is made of.

    Parameters
    ----------
    spec
        its settings
    numbers
        (n_elements,) atomic numbers that it may predict for, rising
    references
        (n_elements,), eV, added to the models' energies of interaction
    engine
        evaluates the models
    weights
        (K, P) trainable weights
    config
        plain values from which the model is made anew
    head
        which head of the model
    familiar
        the training atoms, as far as distances from them need it; None: not known
    """

    spec: MaceSpec
    numbers: NDArray[np.int64]
    references: NDArray[np.float64]
    engine: ModuleEngine
    weights: torch.Tensor
    config: dict[str, Any]
    head: int = 0
    familiar: FeatureDistance | None = None

    @property
    def r_max(self) -> float:
        """Cutoff radius of one layer, Å."""
        return float(self.config["r_max"])

    def reference_sum(self, atoms: AtomTable) -> NDArray[np.float64]:
        """Sum of the reference energies of every structure, (n,), eV."""
        sums = np.bincount(atoms.structure, weights=self.references[atoms.species], minlength=len(atoms.counts))
        return sums.astype(np.float64)

    def chunks(self, edges: Sequence[EdgeList]) -> list[NDArray[np.int64]]:
        """Structures in batches of bounded memory, small ones together."""
        most = CHUNK_BYTES // self.engine.edge_bytes
        chunks: list[list[int]] = []
        n_atoms = n_edges = 0
        for i in np.argsort([len(e.centres) for e in edges], kind="stable"):
            atoms, count = len(edges[i].atoms), len(edges[i].centres)
            if not chunks or n_atoms + atoms > self.engine.chunk_atoms or n_edges + count > most:
                chunks.append([])
                n_atoms = n_edges = 0
            chunks[-1].append(int(i))
            n_atoms, n_edges = n_atoms + atoms, n_edges + count
        return [np.array(chunk) for chunk in chunks]


@dataclass(frozen=True, kw_only=True, eq=False)
class MaceCommittee:
    """K MACE models; made by :func:`train_mace_committee`, :func:`foundation_committee`, :func:`load_committee`.

    Parameters
    ----------
    core
        models, weights and references
    targets
        the user's targets
    calibration
        how spreads become errors, None: not calibrated
    report
        the record of its training, None after loading
    seed
        of its training
    """

    core: MaceCore
    targets: Targets
    calibration: Calibration | None = None
    report: TrainingReport | None = None
    seed: int = 0

    @property
    def spec(self) -> MaceSpec:
        """Its settings."""
        return self.core.spec

    @property
    def n_members(self) -> int:
        """Number of members K."""
        return len(self.core.weights)

    @property
    def elements(self) -> tuple[str, ...]:
        """Element symbols in order of atomic number."""
        return tuple(element_symbol(int(z)) for z in self.core.numbers)

    @property
    def r_max(self) -> float:
        """Cutoff radius of one layer, Å."""
        return self.core.r_max

    def predict(
        self, structures: Sequence[Atoms | Structure], *, stress: bool = True, features: bool = False
    ) -> Prediction:
        """Energies, forces and stresses of every member; all members see the same batch of edges.

        Parameters
        ----------
        structures
            of any size, periodicity and mixture; their elements must be known
        stress
            whether stresses are wanted; they are nan for structures that are not periodic in three directions
        features
            whether invariant descriptors are wanted: the scalar node features of all layers

        Raises
        ------
        PotentialError
            for an element that the committee was not trained on
        StructureError
            for positions or cells that are not finite, or atoms on the same place
        """
        core, k = self.core, self.n_members
        given = as_structures(structures)
        edges = [EdgeList.of(s, core.numbers, core.r_max) for s in given]
        energy, virial = np.zeros((k, len(given))), np.zeros((k, len(given), 6))
        forces = [np.zeros((k, s.n_atoms, 3)) for s in given]
        described: NDArray[np.float64] | None = None
        distance = None if core.familiar is None else np.zeros(len(given))
        for chunk in core.chunks(edges):
            joined = EdgeList.join([edges[i] for i in chunk])
            batch = core.engine.batch(joined)
            out = core.engine.evaluate(core.weights, batch)
            assert out.forces is not None
            assert out.virial is not None
            energy[:, chunk] = out.energy.double().numpy() + core.reference_sum(joined.atoms)
            virial[:, chunk] = out.virial.double().numpy()
            counts = np.array([given[i].n_atoms for i in chunk], dtype=np.int64)
            ends = np.cumsum(counts)
            for i, end in zip(chunk, ends, strict=True):
                forces[i][:] = out.forces[:, end - given[i].n_atoms : end].double().numpy()
            if distance is not None and core.familiar is not None:
                species = torch.tensor(joined.atoms.species)
                distance[chunk] = core.familiar.of_structures(out.features, species, counts)
            if features:
                mean = batch.sum_structures(out.features).double().numpy() / counts[None, :, None]
                described = np.zeros((len(given), k * mean.shape[2])) if described is None else described
                described[chunk] = mean.transpose(1, 0, 2).reshape(len(chunk), -1)
        volumes = np.array([s.volume for s in given], dtype=np.float64)
        return Prediction(
            energy=energy,
            forces=tuple(forces),
            stress=stress_from_virial(virial, volumes) if stress else None,
            n_atoms=np.array([s.n_atoms for s in given], dtype=np.int64),
            features=described,
            distance=distance,
            calibration=self.calibration,
            targets=self.targets,
        )

    def evaluator(self, structures: Sequence[Atoms | Structure], *, stress: bool = True) -> PredictingEvaluator:
        """Return an evaluator for these structures in motion; searching neighbours is little beside the models."""
        from alflow.potentials._adapter import PredictingEvaluator

        return PredictingEvaluator(self, structures, stress=stress)

    def calculator(self, **kwargs: Any) -> CommitteeCalculator:
        """Return an ASE calculator of the committee's mean."""
        from alflow.potentials._calculator import CommitteeCalculator

        return CommitteeCalculator(self, **kwargs)

    def save(self, path: str | Path) -> None:
        """Write to one file of tensors and plain values; see :func:`load_committee`."""
        from alflow.potentials.mace._checkpoint import save_mace_committee

        save_mace_committee(self, path)

    def with_calibration(self, calibration: Calibration | None) -> MaceCommittee:
        """Return the same committee with another calibration."""
        return replace(self, calibration=calibration)

    def with_targets(self, targets: Targets) -> MaceCommittee:
        """Return the same committee judged by other targets."""
        return replace(self, targets=targets)
