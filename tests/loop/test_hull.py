"""Hulls that mix labels and predictions."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from alflow.loop import CampaignContext, import_labels
from alflow.loop._hull import mixed_hull
from alflow.potentials import Prediction
from alflow.structures import LabelledStructure, Properties, Structure


def test_predictions_are_carried_to_the_extrapolated_energies_of_the_labels(small: CampaignContext) -> None:
    pure = {"Ni": (-1.0, 0.02), "Pt": (-2.0, 0.05)}
    labels = [
        LabelledStructure(
            structure=Structure.from_atoms(bulk(symbol, "fcc", a=3.7)),
            properties=Properties(energy=energy, energy_extrapolated=energy + entropy),
        )
        for symbol, (energy, entropy) in pure.items()
    ]
    import_labels(small, [(label, "test") for label in labels], small.theory)
    # on the tie line of the force-consistent energies
    prediction = Prediction(
        energy=np.full((2, 1), -4.0),
        forces=(np.zeros((2, 3, 3)),),
        stress=None,
        n_atoms=np.array([3]),
        targets=small.config.targets,
    )
    hull = mixed_hull(small, [999], [{"Ni": 2, "Pt": 1}], prediction)
    assert hull is not None
    row = hull.ids.index(999)
    assert hull.e_hull[row] == pytest.approx(0.0, abs=1e-9)
    assert hull.formation_energy[row] == pytest.approx(0.0, abs=1e-9)
    assert hull.energy[row] == pytest.approx((-4.0 + 2 * 0.02 + 0.05) / 3)
