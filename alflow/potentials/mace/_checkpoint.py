"""Committees of MACE models on disk: tensors and plain values, read without executing anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from alflow.errors import CheckpointError
from alflow.potentials._calibration import Calibration
from alflow.potentials._distance import FeatureDistance
from alflow.potentials._engine import DTYPES
from alflow.potentials._targets import Targets
from alflow.potentials._training_checkpoint import read_tensors, write_tensors
from alflow.potentials.mace._committee import MaceCommittee, MaceCore
from alflow.potentials.mace._engine import ModuleEngine
from alflow.potentials.mace._library import MaceModule, build_model, require_mace
from alflow.potentials.mace._spec import MaceSpec

FORMAT = "alflow mace committee"
VERSION = 1


def save_mace_committee(committee: MaceCommittee, path: str | Path) -> None:
    """Write a committee to one file, atomically. The training report is not part of it."""
    core, calibration = committee.core, committee.calibration
    frozen = {
        name: value.detach().cpu().contiguous()
        for name, value in core.engine.module.state_dict().items()
        if name not in core.engine.shapes
    }
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
            "model": json.dumps(core.config),
            "head": core.head,
            "names": list(core.engine.shapes),
            "frozen": frozen,
            "weights": core.weights.contiguous(),
            "familiar": None if core.familiar is None else core.familiar.to_dict(),
        },
    )


def load_mace_committee(path: str | Path) -> MaceCommittee:
    """Read a committee of MACE models; predictions are those of the one that was saved.

    Raises
    ------
    CheckpointError
        if the file is missing, damaged, of another version, or its parts do not fit together
    PotentialError
        if mace-torch is missing
    """
    content = read_tensors(Path(path), FORMAT, (VERSION,))
    require_mace()
    try:
        return _assemble(content)
    except (KeyError, TypeError, ValueError, RuntimeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is damaged or was written by another alflow or mace-torch: {reason}") from error


def _assemble(content: dict[str, Any]) -> MaceCommittee:
    spec = MaceSpec.model_validate_json(content["spec"])
    config = json.loads(content["model"])
    numbers = np.array(content["numbers"], dtype=np.int64)
    references = np.array(content["references"], dtype=np.float64)
    weights, names, frozen = content["weights"], list(content["names"]), content["frozen"]
    module = MaceModule(build_model(config, spec.dtype), int(content["head"]))
    expected = set(module.state_dict())
    if set(names) | set(frozen) != expected or set(names) & set(frozen):
        raise ValueError("it does not hold the weights that the model needs")
    module.load_state_dict(frozen, strict=False)
    engine = ModuleEngine(module, names, DTYPES[spec.dtype])
    if not isinstance(weights, torch.Tensor) or tuple(weights.shape) != (spec.n_members, engine.size):
        raise ValueError(f"the weights do not have the shape {(spec.n_members, engine.size)} that the model needs")
    if weights.dtype != DTYPES[spec.dtype] or not bool(torch.isfinite(weights).all()):
        raise ValueError("the weights are not finite floating-point numbers")
    if len(references) != len(numbers) or not np.isfinite(references).all():
        raise ValueError("the reference energies do not fit the elements")
    calibration = content["calibration"]
    return MaceCommittee(
        core=MaceCore(
            spec=spec,
            numbers=numbers,
            references=references,
            engine=engine,
            weights=weights,
            config=config,
            head=int(content["head"]),
            familiar=None
            if content["familiar"] is None
            else FeatureDistance.from_dict(content["familiar"], spec.n_members, len(numbers)),
        ),
        targets=Targets.model_validate_json(content["targets"]),
        calibration=None if calibration is None else Calibration.from_dict(json.loads(calibration)),
        seed=int(content["seed"]),
    )
