"""Labels of one structure carried to an identical one through the isometry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alflow.errors import StructureError
from alflow.structures._lattice import unit_normals
from alflow.structures._properties import Properties

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.structures._isometry import Isometry
    from alflow.structures._structure import Structure


def transfer_properties(
    properties: Properties, isometry: Isometry, source: Structure, target: Structure, *, tolerance: float = 0.01
) -> Properties:
    """Properties of ``target`` from those of an identical ``source``.

    With R the rotation, c the number of target atoms per source atom and s the moments' sign:
    E' = c E, F' = R F, M' = s c M, m' = s m (collinear) or det(R) R m (vectors), p' = c R p, and the virial per atom,
    σ'V'/n' = R (σV/n) Rᵀ, where V is the volume of the cell with its vacuum: so the stress follows a change of vacuum.

    Forces and moments of a target atom are the average over the source atoms that correspond to it.

    A dipole is carried where a direction is not periodic, and only its components along such directions: the others are
    defined modulo a polarisation quantum that the cell decides. About a charged molecule's new origin it gains q t. A
    stress is carried only where both cells have a volume.

    Parameters
    ----------
    properties
        of ``source``
    isometry
        carries ``source`` onto ``target``
    source, target
        the two structures
    tolerance
        eV/Å and µB: how far the copies that an average is taken over may differ

    Raises
    ------
    StructureError
        if the isometry does not belong to these structures, or copies that must agree differ by more than ``tolerance``
    """
    if len(isometry.site_map) != source.n_atoms or len(isometry.inverse_site_map) != target.n_atoms:
        raise StructureError(
            f"the isometry maps {len(isometry.site_map)} on {len(isometry.inverse_site_map)} atoms, "
            f"not {source.n_atoms} on {target.n_atoms}"
        )
    rotation, copies, sign = isometry.rotation, isometry.n_copies, isometry.moment_sign
    forces = moments = stress = dipole = None
    if properties.forces is not None:
        forces = _average(properties.forces @ rotation.T, isometry, tolerance, "forces", "eV/Å")
    if properties.moments is not None:
        axial = properties.moments.ndim == 2
        turned = isometry.det * properties.moments @ rotation.T if axial else sign * properties.moments
        moments = _average(turned, isometry, tolerance, "moments", "µB")
    if properties.stress is not None:
        volume, new_volume = (abs(float(np.linalg.det(s.cell))) for s in (source, target))
        if volume > 0.0 and new_volume > 0.0:
            stress = rotation @ properties.stress @ rotation.T * (volume * copies / new_volume)
    if properties.dipole is not None and not target.pbc.all():
        normals = unit_normals(target.cell[target.pbc])
        carried = copies * (rotation @ properties.dipole)
        if not target.pbc.any():
            carried = carried + source.charge * isometry.translation
        dipole = normals.T @ (normals @ carried)
    extrapolated, total = properties.energy_extrapolated, properties.total_moment
    return Properties(
        energy=properties.energy * copies,
        energy_extrapolated=None if extrapolated is None else extrapolated * copies,
        forces=forces,
        stress=stress,
        dipole=dipole,
        moments=moments,
        total_moment=None if total is None else sign * total * copies,
    )


def _average(
    values: NDArray[np.float64], isometry: Isometry, tolerance: float, name: str, unit: str
) -> NDArray[np.float64]:
    """(n_target, …): mean over the source atoms that correspond to each target atom."""
    forward, backward = isometry.site_map, isometry.inverse_site_map
    means: NDArray[np.float64] = np.zeros((len(backward), *values.shape[1:]))
    np.add.at(means, forward, values)
    counts = np.bincount(forward, minlength=len(backward))
    met = counts > 0
    means[met] /= counts[met].reshape(-1, *([1] * (values.ndim - 1)))
    means[~met] = values[backward[~met]]
    spread = float(np.abs(values - means[forward]).max())
    if spread > tolerance:
        raise StructureError(
            f"{name} of atoms that correspond to the same atom differ from their mean by {spread:.3g} {unit}, more "
            f"than {tolerance:.3g}: the label does not have the symmetry of the structure"
        )
    return means
