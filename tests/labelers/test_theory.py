from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alflow.labelers import Capabilities, Moments, TheorySpec
from alflow.labelers._theory import code_version, file_hash
from alflow.structures import Structure

SPEC = TheorySpec(
    labeler="pw", settings={"cutoff": 50.0, "path": "/a"}, code="pw 7.3", files={"Si": "aa"}, not_physics=("path",)
)


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, labeler="other"),
        replace(SPEC, settings={"cutoff": 51.0, "path": "/a"}),
        replace(SPEC, settings={"cutoff": 50.0, "path": "/a", "spin": True}),
        replace(SPEC, code="pw 7.4"),
        replace(SPEC, files={"Si": "bb"}),
        replace(SPEC, files={"Si": "aa", "C": "cc"}),
    ],
)
def test_any_change_of_physics_changes_the_fingerprint(other: TheorySpec) -> None:
    assert other.fingerprint != SPEC.fingerprint


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, settings={"path": "/elsewhere", "cutoff": 50.0}),
        replace(SPEC, code="pw 7.3.1"),
        replace(SPEC, code="pw 7.3.2.post1"),
    ],
)
def test_place_order_and_patch_version_do_not(other: TheorySpec) -> None:
    assert other.fingerprint == SPEC.fingerprint


def test_the_fingerprint_is_pinned() -> None:
    # Ledgers hold it: a change here orphans every label that anybody has.
    assert SPEC.fingerprint == "4ff4755ad015d701e946c5b6e0c44618f6be392b698571302f87197f2c2d2eeb"


def test_a_setting_that_is_no_json_is_an_error() -> None:
    with pytest.raises(TypeError):
        _ = replace(SPEC, settings={"cutoff": object()}).fingerprint


def test_file_hash_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"pseudo")
    (tmp_path / "b").write_bytes(b"pseudo")
    (tmp_path / "c").write_bytes(b"other")
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b") != file_hash(tmp_path / "c")


def test_code_version_is_major_minor() -> None:
    assert code_version("numpy") == ".".join(np.__version__.split(".")[:2])


def structure(**changes: object) -> Structure:
    content: dict[str, object] = {
        "cell": 4 * np.eye(3),
        "pbc": [True] * 3,
        "numbers": [28, 78],
        "positions": [[0, 0, 0], [2, 2, 2]],
    }
    return Structure(**(content | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("capabilities", "changes", "word"),
    [
        (Capabilities(elements=frozenset({"Ni"})), {}, "no parameters for Pt"),
        (Capabilities(periodic_directions=frozenset({0})), {}, "3 periodic directions"),
        (Capabilities(), {"charge": 1.0}, "charge of +1 e"),
        (Capabilities(), {"moments": [1.0, 0.0]}, "initial magnetic moments"),
        (Capabilities(moments=Moments.COLLINEAR), {"moments": [[1.0, 0, 0], [0, 0, 0]]}, "non-collinear"),
    ],
)
def test_what_it_cannot_is_refused_with_the_reason(
    capabilities: Capabilities, changes: dict[str, object], word: str
) -> None:
    reason = capabilities.refuses(structure(**changes))
    assert reason is not None
    assert word in reason


@pytest.mark.parametrize("moments", [Moments.COLLINEAR, Moments.NONCOLLINEAR, Moments.INDEPENDENT])
def test_what_it_can_is_not_refused(moments: Moments) -> None:
    capabilities = Capabilities(elements=frozenset({"Ni", "Pt"}), charge=True, moments=moments)
    assert capabilities.refuses(structure(charge=-1.0, moments=[1.0, -1.0])) is None
