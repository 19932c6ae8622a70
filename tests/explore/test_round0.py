from __future__ import annotations

import numpy as np
import pytest

from alflow.errors import StructureError
from alflow.explore import Round0Settings, check_filters, elemental_volume, round0
from alflow.explore._round0 import _latin_hypercube, _whole_numbers


def test_references_come_first_in_every_prototype() -> None:
    settings = Round0Settings(n_spread=0, reference_volumes=(0.95, 1.05))
    proposals = list(round0(settings, ("Ni", "Pt"), np.random.default_rng(0)))
    assert len(proposals) == settings.size(2) == 2 * 5 * 2
    for p in proposals:
        expected = p.parameters["volume_factor"] * elemental_volume(p.parameters["element"], p.parameters["prototype"])
        assert p.structure.volume / p.structure.n_atoms == pytest.approx(expected)


@pytest.mark.parametrize("elements", [("Cu",), ("Ni", "Pt"), ("Nb", "Mo", "Ta", "W")])
def test_the_spread_keeps_its_ranges(elements: tuple[str, ...]) -> None:
    settings = Round0Settings(prototypes=(), n_spread=60, max_atoms=6)
    proposals = list(round0(settings, elements, np.random.default_rng(1)))
    assert len(proposals) == 60
    assert {p.parameters["parent"] for p in proposals} == {"fcc", "bcc", "hcp"}
    assert {p.structure.n_atoms for p in proposals} <= set(range(2, 7))
    assert {e for p in proposals for e in p.structure.elements} == set(elements)
    for p in proposals:
        zen = sum(n * elemental_volume(e, p.parameters["parent"]) for e, n in p.structure.composition.items())
        assert p.structure.volume == pytest.approx(p.parameters["volume_factor"] * zen)
        assert 0.88 <= p.parameters["volume_factor"] <= 1.15
        assert check_filters(p.structure) is None


def test_the_spread_covers_a_binary_evenly() -> None:
    settings = Round0Settings(prototypes=(), n_spread=40, max_atoms=16)
    proposals = list(round0(settings, ("Ni", "Pt"), np.random.default_rng(2)))
    fractions = [p.structure.composition.get("Pt", 0) / p.structure.n_atoms for p in proposals]
    counts, _ = np.histogram(fractions, bins=4, range=(0, 1))
    assert counts.min() >= 7
    factors, _ = np.histogram([p.parameters["volume_factor"] for p in proposals], bins=4, range=(0.88, 1.15))
    assert (factors == 10).all()


def test_the_same_generator_gives_the_same_round() -> None:
    def hashes(seed: int) -> list[str]:
        return [p.structure.content_hash for p in round0(Round0Settings(), ("Ni", "Pt"), np.random.default_rng(seed))]

    assert hashes(5) == hashes(5)
    assert hashes(5) != hashes(6)
    assert len(set(hashes(5))) == 30


def test_an_unknown_element_is_named() -> None:
    with pytest.raises(StructureError, match="Qq"):
        list(round0(Round0Settings(), ("Qq",), np.random.default_rng(0)))


def test_the_hypercube_puts_one_point_into_every_stratum() -> None:
    points = _latin_hypercube(10, 3, np.random.default_rng(0))
    assert (np.sort((points * 10).astype(int), axis=0) == np.arange(10)[:, None]).all()


def test_rounding_keeps_the_sum() -> None:
    assert _whole_numbers(np.array([0.5, 0.3, 0.2]), 4).tolist() == [2, 1, 1]
    assert _whole_numbers(np.array([1.0, 0.0]), 3).tolist() == [3, 0]
