import numpy as np

from alflow.discovery import DiscoverySettings, RelaxedLabel, build_hull, confirmation_order, report_stable

COMPOSITIONS = [{"Ni": 1}, {"Pt": 1}, {"Ni": 1, "Pt": 1}, {"Ni": 3, "Pt": 1}, {"Ni": 1, "Pt": 3}]
SETTINGS = DiscoverySettings(max_force=0.05, max_stress=0.005, stable_tolerance=0.001, e_hull_window=0.02)
QUIET = RelaxedLabel(force=0.01, stress=0.001)


def snapshot(labelled: list[bool], spread: float = 0.0):  # type: ignore[no-untyped-def]
    energies = np.array([[0.0, 0.0, -0.28, -0.44, -0.36]] * 4)
    energies[:, 3] += 4 * spread * np.array([-1.5, -0.5, 0.5, 1.5])
    return build_hull(ids=[10, 11, 12, 13, 14], compositions=COMPOSITIONS, energies=energies, labelled=labelled)


def test_only_a_label_at_the_relaxed_geometry_makes_a_compound_stable() -> None:
    labels = {
        10: QUIET,
        11: QUIET,
        12: RelaxedLabel(force=0.2, stress=0.0),
        14: RelaxedLabel(force=0.0, stress=float("nan")),
    }
    report = report_stable(snapshot([True, True, True, False, True]), labels, SETTINGS)
    assert {compound.id for compound in report.stable} == {10, 11}
    reasons = dict(report.unconfirmed)
    assert "predicted only" in reasons[13]
    assert "residual force 0.2" in reasons[12]
    assert "has no stress" in reasons[14]


def test_a_confirmed_compound_carries_its_evidence() -> None:
    report = report_stable(snapshot([True] * 5), dict.fromkeys(range(10, 15), QUIET), SETTINGS)
    compound = next(c for c in report.stable if c.id == 13)
    assert compound.composition == {"Ni": 0.75, "Pt": 0.25}
    assert (compound.force, compound.p_stable) == (0.01, 1.0)
    assert [c.id for c in report.stable] == [11, 14, 12, 13, 10]


def test_what_lies_far_above_the_hull_is_in_neither_list() -> None:
    energies = [0.0, 0.0, -0.28, 0.4, 0.4]
    far = build_hull(ids=range(5), compositions=COMPOSITIONS, energies=energies, labelled=[True] * 5)
    report = report_stable(far, dict.fromkeys(range(5), QUIET), SETTINGS)
    assert {c.id for c in report.stable} == {0, 1, 2}
    assert report.unconfirmed == ()


def test_confirmations_are_unlabelled_relaxed_and_near_the_hull_the_most_promising_first() -> None:
    energies = np.array([[0.0, 0.0, -0.28, -0.40, -0.24]] * 2)
    energies[:, 4] += np.array([-0.3, 0.3])
    hull = build_hull(
        ids=[10, 11, 12, 13, 14],
        compositions=COMPOSITIONS,
        energies=energies,
        labelled=[True, True, False, False, False],
    )
    order = confirmation_order(hull, [12, 13, 14], SETTINGS)
    assert set(order[:2]) == {12, 13}, "what lies on the hull now comes before what may turn out to"
    assert order[2] == 14
    assert set(confirmation_order(hull, [12, 13], SETTINGS)) == {12, 13}
    assert confirmation_order(hull, [10, 11], SETTINGS) == []
    narrow = DiscoverySettings(e_hull_window=0.0)
    assert 14 not in confirmation_order(hull, [12, 13, 14], narrow, n_spreads=0.0)
