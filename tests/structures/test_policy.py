import pytest
from pydantic import ValidationError

from alflow.structures import DuplicatePolicy, Relation


def test_the_three_relations_carry_the_documented_tolerances() -> None:
    identical, redundant, phase = DuplicatePolicy.identical(), DuplicatePolicy.redundant(), DuplicatePolicy.same_phase()
    assert (identical.max_displacement, identical.max_strain, identical.relation) == (1e-4, 1e-5, Relation.IDENTICAL)
    assert (redundant.max_displacement, redundant.max_strain, redundant.relation) == (0.015, 0.002, Relation.REDUNDANT)
    assert (phase.rms_displacement, phase.max_displacement, phase.max_strain) == (0.06, 0.18, 0.01)
    assert identical.moments is not None
    assert redundant.moments is not None
    assert phase.moments is None
    assert identical.mirror
    assert not DuplicatePolicy.same_phase(mirror=False).mirror
    assert DuplicatePolicy.same_phase(any_volume=True).any_volume


def test_a_policy_is_frozen_and_refuses_unknown_keys() -> None:
    with pytest.raises(ValidationError):
        DuplicatePolicy.identical().mirror = False  # type: ignore[misc]
    with pytest.raises(ValidationError):
        DuplicatePolicy.model_validate({**DuplicatePolicy.identical().model_dump(), "mirorr": True})


def test_a_policy_survives_json() -> None:
    policy = DuplicatePolicy.redundant(0.02, 0.003, mirror=False)
    assert DuplicatePolicy.model_validate_json(policy.model_dump_json()) == policy
