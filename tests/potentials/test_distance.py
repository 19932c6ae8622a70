"""How far a structure is from the training atoms, and what that does to its expected error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from alflow.potentials import (
    Calibration,
    Committee,
    CommitteeSpec,
    Errors,
    Kind,
    KindCalibration,
    NativeCommittee,
    Spreads,
    Targets,
    TrainingSpec,
    coverage,
    fit_calibration,
    load_committee,
    train_committee,
)
from alflow.potentials._distance import FeatureDistance


def distance(committee: Committee, structures: list[Atoms]) -> np.ndarray:
    found = committee.predict(structures).distance
    assert found is not None
    return found


def test_it_is_the_mahalanobis_length() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 3))
    x = torch.from_numpy(rng.normal(size=(2, 4000, 3)) @ mixing)
    species = torch.zeros(4000, dtype=torch.int64)
    fitted = FeatureDistance.fit(x, species, np.full(4000, 1), 1)
    assert fitted.of_atoms(x, species).square().mean().sqrt() * fitted.unit == pytest.approx(1.0, abs=0.01)
    inverse = np.linalg.inv(np.cov(x[0].numpy().T, bias=True))
    one = torch.from_numpy(np.stack([[[3.0, 0, 0]], [[3.0, 0, 0]]]))
    away = 3.0 * np.array([1.0, 0, 0]) - x.mean(1).numpy()
    inverse2 = np.linalg.inv(np.cov(x[1].numpy().T, bias=True))
    wanted = np.sqrt((away[0] @ inverse @ away[0] + away[1] @ inverse2 @ away[1]) / 6)
    assert float(fitted.of_atoms(one, species[:1])[0]) * fitted.unit == pytest.approx(wanted, rel=0.02)


def test_training_structures_are_within_and_strange_ones_beyond(
    committee: NativeCommittee, labelled: list[Atoms]
) -> None:
    assert committee.report is not None
    learned = [labelled[i] for i in range(len(labelled)) if i not in committee.report.held_out]
    own = distance(committee, learned)
    assert np.mean(own <= 1.0) >= 0.95
    assert own.max() > 1.0
    squeezed = bulk("Ni", cubic=True, a=2.7)
    dimer = Atoms("Pt2", positions=[[0, 0, 0], [0, 0, 2.1]])
    assert distance(committee, [squeezed, dimer]).min() > 1.5


def test_it_is_invariant_and_that_of_the_furthest_atom(committee: NativeCommittee) -> None:
    rng = np.random.default_rng(1)
    atoms = bulk("Ni", a=3.6) * (1, 2, 3)
    atoms.symbols[:2] = "Pt"
    atoms.positions += rng.normal(size=(6, 3)) * 0.1
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = Atoms(atoms.numbers[::-1], (atoms.positions[::-1] + 1.7) @ turn, cell=atoms.cell.array @ turn, pbc=True)
    same = distance(committee, [atoms, turned, atoms * (2, 1, 1)])
    np.testing.assert_allclose(same, same[0], rtol=1e-9)
    defect = atoms * (3, 3, 3)
    defect.positions[0] += [0.5, 0.4, 0.3]
    assert distance(committee, [defect])[0] > 1.1 * same[0]


def test_it_is_kept_on_disk_and_in_every_precision(
    committee: NativeCommittee, labelled: list[Atoms], tmp_path: Path
) -> None:
    committee.save(tmp_path / "committee.pt")
    read = load_committee(tmp_path / "committee.pt")
    np.testing.assert_array_equal(distance(read, labelled), distance(committee, labelled))
    single = committee.predict(labelled, dtype="float32").spreads.distances
    np.testing.assert_allclose(single, distance(committee, labelled), rtol=1e-3)
    evaluate = committee.evaluator(labelled[:3])
    moving = evaluate([a.positions for a in labelled[:3]], np.stack([a.cell.array for a in labelled[:3]]))
    np.testing.assert_allclose(moving.spreads.distances, distance(committee, labelled[:3]), rtol=1e-6)


def test_few_atoms_do_not_make_everything_infinitely_far() -> None:
    rng = np.random.default_rng(2)
    x = torch.from_numpy(rng.normal(size=(1, 6, 20)))
    fitted = FeatureDistance.fit(x, torch.zeros(6, dtype=torch.int64), np.array([3, 3]), 1)
    others = torch.from_numpy(rng.normal(size=(1, 50, 20)))
    assert float(fitted.of_atoms(others, torch.zeros(50, dtype=torch.int64)).max()) < 10
    alone = FeatureDistance.fit(x[:, :1], torch.zeros(1, dtype=torch.int64), np.array([1]), 1)
    assert torch.isfinite(alone.of_atoms(others, torch.zeros(50, dtype=torch.int64))).all()


def test_atoms_that_are_all_alike_tell_no_distance() -> None:
    """One ideal crystal: rounding is not far from it, and a little strain is not infinitely far."""
    crystal = bulk("Ni", cubic=True)
    example = crystal.copy()
    example.info["REF_energy"] = -0.1
    committee = train_committee([example], CommitteeSpec(channels=8), TrainingSpec(max_epochs=2))
    strained = crystal.copy()
    strained.set_cell(1.02 * crystal.cell, scale_atoms=True)
    same, other = distance(committee, [crystal, strained])
    assert same < 0.1
    assert 1 < other < 1000


# -- what it does to errors ------------------------------------------------------------------------------------------


def rows(distances: np.ndarray, e: np.ndarray, s: np.ndarray) -> tuple[Spreads, Errors]:
    return Spreads(energy=s, force=s, stress=s, distance=distances), Errors(energy=e, force=e, stress=e)


def test_beyond_the_data_the_larger_of_the_two_counts() -> None:
    rng = np.random.default_rng(3)
    n = 400
    s = np.exp(rng.normal(scale=0.5, size=n))
    near = rng.uniform(0.5, 1.2, size=n)
    spread, error = rows(near, np.abs(rng.normal(size=n)) * 2 * s, s)
    with_distance = fit_calibration(spread, error, stream=np.zeros(n, bool)).energy
    plain = Spreads(energy=s, force=s, stress=s)
    without = fit_calibration(plain, error, stream=np.zeros(n, bool)).energy
    assert with_distance is not None
    assert without is not None
    assert (with_distance.a, with_distance.c) == (without.a, without.c)
    assert without.b == 0
    assert 1.0 <= with_distance.reach <= 1.2
    inside, outside = np.array([0.1, 0.5, 1.0]), np.array([3.0, 10.0])
    np.testing.assert_array_equal(with_distance.sigma(0.5, inside), without.sigma(np.full(3, 0.5)))
    far = with_distance.sigma(0.1, outside)
    assert (far > 2 * without.sigma(0.1)).all()
    assert far[1] / far[0] == pytest.approx((100 - with_distance.reach**2) / (9 - with_distance.reach**2))
    assert with_distance.sigma(1000.0, 10.0) == without.sigma(1000.0)
    np.testing.assert_array_equal(with_distance.sigma(0.5, np.nan), without.sigma(0.5))


def test_it_catches_what_the_members_agree_on() -> None:
    """Far from the data errors are large and spreads are small."""
    rng = np.random.default_rng(4)
    n = 300
    s, d = np.exp(rng.normal(scale=0.3, size=n)), rng.uniform(0.3, 1.0, size=n)
    spread, error = rows(d, np.abs(rng.normal(size=n)) * s, s)
    calibration = fit_calibration(spread, error, stream=np.arange(n) < 100)
    far = np.full(200, 5.0)
    strange, wrong = rows(far, np.abs(rng.normal(size=200)) * 5, np.full(200, 0.5))
    blind = Spreads(energy=strange.energy, force=strange.force, stress=strange.stress)
    seen, unseen = (coverage(calibration, x, wrong)[Kind.ENERGY].coverage90 for x in (strange, blind))
    assert seen is not None
    assert unseen is not None
    assert unseen < 0.4
    assert seen > 0.8
    u = calibration.apply(strange).energy / Targets(energy=1.0).energy
    assert (u > 1).all()


def test_where_all_is_zero_by_symmetry_distance_changes_nothing() -> None:
    kind = KindCalibration(a=1.5, c=0.1, shape=1.5, q90=None, n_fit=9, n_conformal=0, b=1.0, reach=1.0)
    zero = np.zeros(1)
    errors = Calibration(force=kind).apply(Spreads(energy=zero, force=zero, stress=zero, distance=np.array([50.0])))
    assert errors.force.tolist() == [0.0]


def test_what_was_not_predicted_has_no_error_however_far() -> None:
    kind = KindCalibration(a=1.5, c=0.1, shape=1.5, q90=None, n_fit=9, n_conformal=0, b=1.0, reach=1.0)
    unknown = Spreads(
        energy=np.ones(3), force=np.ones(3), stress=np.full(3, np.nan), distance=np.array([0.5, 50, np.nan])
    )
    calibration = Calibration(energy=kind, force=kind, stress=kind)
    errors = calibration.apply(unknown)
    assert np.isnan(errors.stress).all()
    assert np.isnan(calibration.intervals(errors).stress).all()
    assert np.isfinite(errors.energy).all()


def test_stored_forms() -> None:
    old = {"version": 1, "energy": {"a": 1.5, "c": 0.1, "shape": 0.5, "q90": None, "n_fit": 3, "n_conformal": 0}}
    read = Calibration.from_dict(old | {"force": None, "stress": None})
    assert read.energy is not None
    assert read.energy.b == 0
    spread = Spreads(
        energy=np.array([0.1, 0.2]),
        force=np.array([np.nan, 1.0]),
        stress=np.zeros(2),
        distance=np.array([0.5, np.nan]),
    )
    table = spread.rows()
    assert table[0] == {"energy": 0.1, "force": None, "stress": 0.0, "distance": 0.5}
    again = Spreads.from_rows([{k: v for k, v in row.items() if v is not None} for row in table])
    assert again.rows() == table
    assert Spreads.join([spread[[1]], spread[:1]]).rows() == table[::-1]
    assert len(Errors.join([])) == 0
    with pytest.raises(ValueError, match="2 of energy, 1 of force"):
        Errors(energy=np.ones(2), force=np.ones(1), stress=np.ones(2))
