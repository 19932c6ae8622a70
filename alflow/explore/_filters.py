"""Physical limits of candidates, each with a reason that a person can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase.data import covalent_radii

from alflow.errors import StructureError
from alflow.explore._settings import FilterSettings
from alflow.structures import Structure, element_symbol, neighbour_list

if TYPE_CHECKING:
    from alflow.potentials import Prediction


def check_filters(
    structure: Structure, settings: FilterSettings | None = None, prediction: Prediction | None = None
) -> str | None:
    """Return why a structure is not worth a calculation, or None.

    Parameters
    ----------
    structure
        to be checked
    settings
        the limits; None: the defaults
    prediction
        of this one structure; without it the limit on forces is not checked
    """
    return check_filters_batch([structure], settings, prediction)[0]


def check_filters_batch(
    structures: Sequence[Structure], settings: FilterSettings | None = None, prediction: Prediction | None = None
) -> list[str | None]:
    """Return for every structure why it is not worth a calculation, or None.

    Parameters
    ----------
    structures
        to be checked
    settings
        the limits; None: the defaults
    prediction
        of the same structures in the same order; without it the limit on forces is not checked

    Raises
    ------
    ValueError
        if the prediction is of another number of structures
    """
    settings = settings or FilterSettings()
    if prediction is not None and len(prediction) != len(structures):
        raise ValueError(f"{len(structures)} structures but predictions for {len(prediction)}")
    reasons = [_geometry(structure, settings) for structure in structures]
    if prediction is not None:
        for i, forces in enumerate(prediction.force_mean):
            largest = float(np.linalg.norm(forces, axis=1).max())
            if reasons[i] is None and not largest <= settings.max_force:
                reasons[i] = (
                    f"predicted force of {largest:.1f} eV/Å on an atom; the limit is {settings.max_force:g} eV/Å"
                )
    return reasons


def _geometry(structure: Structure, settings: FilterSettings) -> str | None:
    if structure.n_atoms > settings.max_atoms:
        return f"{structure.n_atoms} atoms; the limit is {settings.max_atoms}"
    if structure.n_periodic == 3:
        volume = structure.volume / structure.n_atoms
        if volume < settings.min_volume_per_atom:
            return f"volume of {volume:.2f} Å³/atom; the limit is {settings.min_volume_per_atom:g} Å³/atom"
        if volume > settings.max_volume_per_atom:
            return f"volume of {volume:.1f} Å³/atom; the limit is {settings.max_volume_per_atom:g} Å³/atom"
    return _too_close(structure, settings.min_distance_factor)


def _too_close(structure: Structure, factor: float) -> str | None:
    radii = covalent_radii[structure.numbers]
    if factor <= 0:
        return None
    try:
        pairs = neighbour_list(structure, factor * 2 * float(radii.max()))
    except StructureError as error:  # atoms on one place, or far too many
        return str(error)
    if not len(pairs.distances):
        return None
    sums = radii[pairs.centres] + radii[pairs.neighbours]
    ratio = pairs.distances / sums
    worst = int(ratio.argmin())
    if ratio[worst] >= factor:
        return None
    names = "–".join(element_symbol(int(structure.numbers[i])) for i in (pairs.centres[worst], pairs.neighbours[worst]))
    return (
        f"{names} distance of {pairs.distances[worst]:.2f} Å is {ratio[worst]:.2f} of the sum of the covalent radii; "
        f"the limit is {factor:g} ({factor * sums[worst]:.2f} Å)"
    )
