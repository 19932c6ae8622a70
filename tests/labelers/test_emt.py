from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from alflow.errors import ConfigError, FailureKind, LabelFailure
from alflow.labelers import EMT_ELEMENTS, check_labeler, get_labeler
from alflow.structures import Structure


def close(actual: Any, expected: Any, atol: float) -> None:
    """Arrays that are there, and agree."""
    assert actual is not None
    assert expected is not None
    np.testing.assert_allclose(actual, expected, atol=atol)


def test_numbers_are_those_of_ase(alloy: Structure) -> None:
    atoms = alloy.to_atoms()
    atoms.calc = EMT()
    properties = get_labeler("emt").label(atoms).properties
    assert properties.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
    close(properties.forces, atoms.get_forces(), atol=1e-12)
    close(properties.stress, atoms.get_stress(voigt=False), atol=1e-12)
    assert properties.energy_extrapolated is None


def test_it_keeps_the_promises_of_a_labeler(alloy: Structure, water: Structure) -> None:
    iron = Structure.from_atoms(bulk("Fe"))
    check_labeler(get_labeler("emt"), [alloy, water, iron])


def test_the_elements_are_those_of_ase() -> None:
    from ase.calculators.emt import parameters

    assert frozenset(parameters) == EMT_ELEMENTS


def test_another_element_is_refused_with_the_reason() -> None:
    with pytest.raises(LabelFailure, match="no parameters for Fe, only for Ag, Al") as caught:
        get_labeler("emt").label(bulk("Fe"))
    assert caught.value.kind is FailureKind.REFUSED


def test_moments_do_not_matter_and_a_charge_is_refused(alloy: Structure) -> None:
    labeler = get_labeler("emt")
    atoms = alloy.to_atoms()
    plain = labeler.label(atoms).properties.energy
    atoms.set_initial_magnetic_moments([1.0] * 4)
    assert labeler.label(atoms).properties.energy == plain
    atoms.info["charge"] = 1.0
    with pytest.raises(LabelFailure, match="charge"):
        labeler.label(atoms)


def test_no_stress_without_three_periods(water: Structure) -> None:
    assert get_labeler("emt").label(water).properties.stress is None


def test_the_cutoff_is_physics(alloy: Structure) -> None:
    table, asap = get_labeler("emt"), get_labeler("emt", {"asap_cutoff": True})
    assert table.theory().fingerprint != asap.theory().fingerprint
    assert table.label(alloy).properties.energy != asap.label(alloy).properties.energy


def test_defaults_are_resolved_in_the_theory() -> None:
    assert get_labeler("emt").theory().settings == {"asap_cutoff": False}


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="asap_cut: this key is not known; did you mean `asap_cutoff`"):
        get_labeler("emt", {"asap_cut": True})


def test_atoms_on_top_of_each_other_are_implausible() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.positions[1] = atoms.positions[0] + [1e-8, 0, 0]
    with pytest.raises(LabelFailure) as caught:
        get_labeler("emt").label(atoms)
    assert caught.value.kind is FailureKind.IMPLAUSIBLE
