import pytest
from pydantic import ValidationError

from alflow.potentials import Kind, Targets


def test_targets_are_found_by_kind_and_kinds_know_their_unit() -> None:
    targets = Targets(energy=0.002, force=0.05, stress=0.003)
    assert [targets.of(kind) for kind in Kind] == [0.002, 0.05, 0.003]
    assert [kind.unit for kind in Kind] == ["eV/atom", "eV/Å", "eV/Å³"]


@pytest.mark.parametrize("wrong", [{"energy": 0.0}, {"force": -1.0}, {"u_max": 1.0}, {"forces": 0.1}])
def test_targets_must_be_positive_and_known(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Targets(**wrong)
