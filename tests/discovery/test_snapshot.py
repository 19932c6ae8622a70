import json

import numpy as np
import pytest

from alflow.discovery import HullSnapshot, build_hull

NI, PT, NIPT, NI3PT = {"Ni": 1}, {"Pt": 1}, {"Ni": 1, "Pt": 1}, {"Ni": 3, "Pt": 1}


def hull(energies: list[list[float]], labelled: list[bool], **more: object) -> HullSnapshot:
    return build_hull(
        ids=[1, 2, 3, 4],
        compositions=[NI, PT, NIPT, NI3PT],
        energies=energies,
        labelled=labelled,
        **more,  # type: ignore[arg-type]
    )


def test_distances_formation_energies_and_stable_set() -> None:
    snapshot = hull([[0.0, 0.0, -0.28, 0.04]], [True] * 4)
    np.testing.assert_allclose(snapshot.e_hull, [0, 0, 0, 0.01 + 0.07], atol=1e-12)
    np.testing.assert_allclose(snapshot.formation_energy, [0, 0, -0.14, 0.01], atol=1e-12)
    assert snapshot.stable == (1, 2, 3)
    assert snapshot.spread.tolist() == [0.0] * 4
    assert [entry["id"] for entry in snapshot.stable_entries()] == [2, 3, 1]


def test_members_give_a_spread_and_a_share_that_calls_it_stable() -> None:
    energies = [[0, 0, -0.28, e] for e in (-0.29, -0.27, -0.2, -0.2)]
    snapshot = hull(energies, [True, True, True, False])
    assert snapshot.p_stable.tolist() == [1.0, 1.0, 1.0, 0.25]
    per_member = [max(0.0, e / 4 + 0.07) for e in (-0.29, -0.27, -0.2, -0.2)]
    assert snapshot.spread[3] == pytest.approx(np.std(per_member, ddof=1))
    assert snapshot.spread[:3].tolist() == [0.0] * 3


def test_labels_have_no_spread_even_if_the_members_disagree_about_them() -> None:
    energies = np.array([[0, 0, -0.28, -0.2]] * 4) + np.arange(4)[:, None] * 0.1
    assert hull(energies.tolist(), [True] * 4).spread.tolist() == [0.0] * 4


def test_members_are_stretched_to_the_calibrated_error() -> None:
    energies = [[0, 0, -0.28, e] for e in (-0.22, -0.21, -0.20, -0.19)]
    raw = hull(energies, [True, True, True, False])
    wide = hull(energies, [True, True, True, False], energy_error=[np.nan, np.nan, np.nan, 0.01])
    assert wide.spread[3] == pytest.approx(0.01)
    assert wide.spread[3] > raw.spread[3] * 2
    np.testing.assert_allclose(wide.e_hull, raw.e_hull, atol=1e-12)


def test_a_missing_reference_leaves_only_its_own_formation_energies_unknown() -> None:
    snapshot = build_hull(
        ids=[1, 2, 3],
        compositions=[NI, {"Ni": 1, "Al": 1}, {"Al": 1, "Cu": 1}],
        energies=[0.0, -1.0, -1.0],
        labelled=[True] * 3,
    )
    assert np.isfinite(snapshot.formation_energy).tolist() == [True, False, False]
    assert snapshot.entries()[1]["formation_energy"] is None


def test_records_are_json() -> None:
    snapshot = hull([[0.0, 0.0, -0.28, 0.04]] * 2, [True, True, False, False])
    records = json.loads(json.dumps([snapshot.entries(), snapshot.stable_entries(), snapshot.summary()]))
    assert records[0][2] == {
        "id": 3,
        "composition": {"Ni": 0.5, "Pt": 0.5},
        "labelled": False,
        "energy": pytest.approx(-0.14),
        "formation_energy": pytest.approx(-0.14),
        "e_hull": pytest.approx(0.0),
        "spread": 0.0,
        "p_stable": 1.0,
    }
    assert records[2]["n_stable_predicted"] == 1


def test_the_lowest_of_many_noisy_predictions_is_too_low() -> None:
    """The bias that the docstring warns of, and the reason why predictions are never reported stable."""
    rng = np.random.default_rng(0)
    n, noise = 40, 0.02
    compositions = [NI, PT] + [NIPT] * n
    lowest = []
    for _ in range(50):
        energies = np.concatenate([[0, 0], -0.2 + 2 * noise * rng.normal(size=n)])
        snapshot = build_hull(
            ids=range(n + 2), compositions=compositions, energies=energies, labelled=[True] * 2 + [False] * n
        )
        lowest.append(snapshot.energy[list(snapshot.stable)].min())
    assert np.mean(lowest) < -0.1 - 1.5 * noise


@pytest.mark.parametrize(
    ("change", "message"),
    [({"ids": []}, "at least one entry"), ({"energies": [0.0, np.nan]}, "finite"), ({"labelled": [True]}, "2 ids")],
)
def test_bad_input_is_refused(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "ids": [1, 2],
        "compositions": [NI, PT],
        "energies": [0.0, 0.0],
        "labelled": [True, True],
    }
    with pytest.raises(ValueError, match=message):
        build_hull(**{**arguments, **change})  # type: ignore[arg-type]
