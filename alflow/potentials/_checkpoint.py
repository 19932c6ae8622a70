"""Committees on disk: one versioned file of tensors and plain values, read without executing anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from alflow.errors import CheckpointError
from alflow.potentials._calibration import Calibration
from alflow.potentials._committee import NativeCommittee
from alflow.potentials._core import CommitteeCore
from alflow.potentials._distance import FeatureDistance
from alflow.potentials._engine import DTYPES
from alflow.potentials._network import CommitteeNetwork, Constants
from alflow.potentials._spec import CommitteeSpec
from alflow.potentials._targets import Targets
from alflow.potentials._training_checkpoint import read_tensors, write_tensors
from alflow.potentials._weights import WeightLayout

FORMAT = "alflow committee"
VERSION = 2
"""Version 1 had angular functions that are not damped; its weights are turned into those of version 2."""


def save_committee(committee: NativeCommittee, path: str | Path) -> None:
    """Write a committee to one file, atomically. The training report is not part of it."""
    core, calibration = committee.core, committee.calibration
    write_tensors(
        Path(path),
        {
            "format": FORMAT,
            "version": VERSION,
            "spec": core.spec.model_dump_json(),
            "targets": committee.targets.model_dump_json(),
            "calibration": None if calibration is None else json.dumps(calibration.to_dict()),
            "seed": committee.seed,
            "numbers": [int(z) for z in core.numbers],
            "references": [float(x) for x in core.references],
            "constants": {
                "scale": core.constants.scale,
                "neighbours": core.constants.neighbours,
                "coordination": core.constants.coordination,
                "cohesion": list(core.constants.cohesion),
                "density": [list(row) for row in core.constants.density],
            },
            "weights": core.weights.contiguous(),
            "familiar": None if core.familiar is None else core.familiar.to_dict(),
        },
    )


def load_committee(path: str | Path) -> NativeCommittee:
    """Read a committee; predictions are bitwise those of the one that was saved.

    Raises
    ------
    CheckpointError
        if the file is missing, damaged, of another version, or its parts do not fit together
    """
    content = read_tensors(Path(path), FORMAT, (1, VERSION))
    try:
        return _assemble(content)
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is damaged or was written by another alflow: {reason}") from error


def _assemble(content: dict[str, Any]) -> NativeCommittee:
    spec = CommitteeSpec.model_validate_json(content["spec"])
    numbers = np.array(content["numbers"], dtype=np.int64)
    parts = dict(content["constants"])
    density = tuple(tuple(float(x) for x in row) for row in parts.pop("density"))
    constants = Constants(cohesion=tuple(parts.pop("cohesion")), density=density, **parts)
    weights, references = content["weights"], np.array(content["references"], dtype=np.float64)
    expected = (spec.n_members, CommitteeNetwork(spec, len(numbers), constants).layout.size)
    if not isinstance(weights, torch.Tensor) or tuple(weights.shape) != expected:
        raise ValueError(f"the weights do not have the shape {expected} that the network needs")
    if weights.dtype not in DTYPES.values() or not bool(torch.isfinite(weights).all()):
        raise ValueError("the weights are not finite floating-point numbers")
    if content["version"] == 1:
        weights = _undamped(weights, CommitteeNetwork(spec, len(numbers), constants).layout)
    sizes = {len(numbers), len(references), len(constants.cohesion), len(constants.density)}
    if len(sizes) > 1 or not np.isfinite(references).all():
        raise ValueError("the reference energies do not fit the elements")
    calibration, familiar = content["calibration"], content.get("familiar")  # files of alflow 0.1 have none
    return NativeCommittee(
        core=CommitteeCore(
            spec=spec,
            numbers=numbers,
            constants=constants,
            references=references,
            weights=weights,
            familiar=None if familiar is None else FeatureDistance.from_dict(familiar, spec.n_members, len(numbers)),
        ),
        targets=Targets.model_validate_json(content["targets"]),
        calibration=None if calibration is None else Calibration.from_dict(json.loads(calibration)),
        seed=int(content["seed"]),
    )


def _undamped(weights: torch.Tensor, layout: WeightLayout) -> torch.Tensor:
    """Weights that do with damped angular functions what the given ones did with functions that were not."""
    weights = weights.clone()
    views = layout.views(weights)
    grow = torch.arange(1.0, views["density"].shape[1] + 1, dtype=weights.dtype)
    views["density"] *= grow[:, None, None]
    if "message" in views:
        views["message"] *= grow[:, None]
    return weights
