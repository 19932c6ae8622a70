import json
from typing import Any

import numpy as np
import pytest

from alflow.errors import StructureError
from alflow.structures import DuplicatePolicy, Isometry, Structure, find_isometry
from tests.crystals import random_crystal
from tests.disguises import Disguise, disguise


def example() -> tuple[Structure, Structure, Isometry]:
    rng = np.random.default_rng(0)
    atoms = random_crystal(rng, 5, ("Cu", "Au"))
    a, b = Structure.from_atoms(atoms), Structure.from_atoms(disguise(atoms, rng, Disguise(supercell=1)))
    found = find_isometry(a, b, DuplicatePolicy.identical())
    assert found is not None
    return a, b, found


def test_json_round_trip() -> None:
    _, _, one = example()
    back = Isometry.from_dict(json.loads(json.dumps(one.to_dict())))
    for name in ("rotation", "translation", "strain", "site_map", "inverse_site_map"):
        np.testing.assert_array_equal(getattr(back, name), getattr(one, name))
    assert (back.max_displacement, back.moment_sign, back.det) == (one.max_displacement, one.moment_sign, one.det)


def test_the_inverse_undoes_the_map() -> None:
    a, _, one = example()
    np.testing.assert_allclose(one.inverse().apply(one.apply(a.positions)), a.positions, atol=1e-12)


def test_the_inverse_undoes_a_strained_map() -> None:
    rng = np.random.default_rng(1)
    symmetric = rng.normal(size=(3, 3)) * 0.01
    _, _, one = example()
    strained = Isometry(
        rotation=one.rotation,
        translation=one.translation,
        strain=symmetric + symmetric.T,
        site_map=one.site_map,
        inverse_site_map=one.inverse_site_map,
        max_displacement=0.0,
        rms_displacement=0.0,
        max_strain=0.02,
    )
    points = rng.normal(size=(7, 3))
    np.testing.assert_allclose(strained.inverse().apply(strained.apply(points)), points, atol=1e-12)
    np.testing.assert_allclose(strained.inverse().strain, strained.inverse().strain.T, atol=1e-12)


@pytest.mark.parametrize("content", [{}, {"rotation": 1}, {"nonsense": []}])
def test_damaged_content_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(StructureError, match="isometry"):
        Isometry.from_dict(content)
