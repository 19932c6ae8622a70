"""How labels change with one setting: an argument of a calculator, and a labeler's own setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from alflow.errors import ConfigError, FailureKind, LabelFailure
from alflow.labelers import (
    CalculatorSettings,
    ConvergencePoint,
    LabelResult,
    WorkerConfig,
    compare_convergence,
    converge_labeler,
    small_crystal,
)
from alflow.labelers._converge import with_value

WORKER = WorkerConfig(
    labelers={
        "lj": CalculatorSettings(
            calculator="ase.calculators.lj.LennardJones", arguments={"sigma": 2.3, "epsilon": 0.3, "rc": 6.0}
        )
    }
)


def series(setting: str, values: Sequence[float], settings: dict[str, Any] | None = None) -> list[Any]:
    return list(
        converge_labeler(
            "ase",
            settings or {"calculator": "lj"},
            setting,
            values,
            small_crystal(("Cu",)),
            worker=WORKER,
            directory=Path(),
        )
    )


def test_a_longer_cutoff_converges() -> None:
    values = [5.0, 8.0, 12.0, 16.0]
    results = series("arguments.rc", values)
    points = compare_convergence(values, results)
    assert [point.value for point in points] == values
    differences = [abs(point.energy_difference or 0.0) for point in points]
    assert differences == sorted(differences, reverse=True)
    assert differences[0] > 1e-3
    last = points[-1]
    assert (last.energy_difference, last.force_difference, last.stress_difference) == (0.0, 0.0, 0.0)
    assert all(point.seconds is not None and point.seconds > 0 for point in points)
    assert points[0].energy == pytest.approx(results[0].properties.energy / 2)


def test_what_is_not_known_is_told_before_anything_is_computed() -> None:
    with pytest.raises(ConfigError, match="cutof"):
        series("cutof", [1.0, 2.0])
    with pytest.raises(ConfigError, match="changes nothing"):
        series("arguments.rc", [5.0, 5.0])


def test_a_value_without_a_label_keeps_its_row() -> None:
    first, last = series("arguments.rc", [5.0, 8.0])
    failure = LabelFailure(FailureKind.NOT_CONVERGED, "60 iterations")
    points = compare_convergence([5.0, 6.0, 8.0], [first, failure, last])
    assert "60 iterations" in str(points[1].failure)
    assert points[1].energy is None
    assert points[0].energy_difference is not None
    without: list[ConvergencePoint] = compare_convergence([5.0, 6.0], [first, failure])
    assert isinstance(first, LabelResult)
    assert (without[0].energy is None, without[0].energy_difference) == (False, None)


def test_keys_lead_into_sections() -> None:
    settings = {"mode": {"name": "pw", "ecut": 300}, "xc": "PBE"}
    assert with_value(settings, "mode.ecut", 400) == {"mode": {"name": "pw", "ecut": 400}, "xc": "PBE"}
    assert with_value(settings, "k.spacing", 0.2)["k"] == {"spacing": 0.2}
    assert settings["mode"] == {"name": "pw", "ecut": 300}
