"""Checkpoints of a running training: written atomically, read without executing anything."""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alflow.errors import CheckpointError
from alflow.potentials._optimiser import OptimiserState
from alflow.potentials._trainer import TrainerState

if TYPE_CHECKING:
    from pydantic import BaseModel

    from alflow.potentials._dataset import Trainable
    from alflow.potentials._spec import TrainingSpec
    from alflow.potentials._targets import Targets
    from alflow.structures import LabelledStructure

FORMAT = "alflow training"
VERSION = 3
STATE = tuple(f.name for f in fields(TrainerState) if f.name not in {"optimiser", "history"})


def fingerprint_of(
    examples: Sequence[LabelledStructure],
    spec: BaseModel,
    training: TrainingSpec,
    targets: Targets,
    seed: int,
    core: Trainable,
) -> str:
    """Everything that decides the result of a training, as one hash: only the same call may go on from a checkpoint."""
    digest = hashlib.sha256(f"{FORMAT} {VERSION} {torch.__version__} {seed}".encode())
    for model in (spec, training, targets):
        digest.update(model.model_dump_json().encode())
    for example in examples:
        digest.update(example.structure.content_hash.encode())
        digest.update(example.properties.to_bytes())
    digest.update(core.weights.numpy().tobytes())
    digest.update(core.references.tobytes())
    return digest.hexdigest()


class TrainingCheckpoint:
    """The checkpoint of one training in a folder.

    Parameters
    ----------
    directory
        is made when the first checkpoint is written
    fingerprint
        of the call; a checkpoint of another call is replaced
    """

    def __init__(self, directory: Path, fingerprint: str) -> None:
        self.path = directory / "training.ckpt"
        self.fingerprint = fingerprint

    def save(self, state: TrainerState) -> None:
        """Write a checkpoint."""
        o = state.optimiser
        write_tensors(
            self.path,
            {
                "format": FORMAT,
                "version": VERSION,
                "fingerprint": self.fingerprint,
                "weights": o.weights,
                "average": o.average,
                "first": o.first,
                "second": o.second,
                "step": o.step,
                **{name: getattr(state, name) for name in STATE},
                "history": list(state.history),
            },
        )

    def load(self) -> TrainerState | None:
        """Return where the same call stood, or None where there is nothing to go on from.

        Raises
        ------
        CheckpointError
            if the file is damaged or of another kind
        """
        if not self.path.exists():
            return None
        try:
            content = read_tensors(self.path, FORMAT, range(1, VERSION + 1))  # no earlier version has the fingerprint
        except CheckpointError as error:
            raise CheckpointError(f"{error}; delete it to train from the beginning") from error
        if content.get("fingerprint") != self.fingerprint:
            return None
        try:
            optimiser = OptimiserState(
                **{name: content[name] for name in ("weights", "average", "first", "second", "step")}
            )
            history = [(int(e), float(t), h) for e, t, h in content["history"]]
            return TrainerState(optimiser=optimiser, history=history, **{name: content[name] for name in STATE})
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.path} lacks {error}: delete it to train again") from error


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values so that the file is either the old or the new one, also after a power cut.

    A hash of the content goes with it, for torch itself reads over flipped bits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            torch.save({**content, "sha256": hash_of(content)}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: Path, format_name: str, versions: Sequence[int]) -> dict[str, Any]:
    """Read what :func:`write_tensors` wrote; only tensors and plain values can come out (``weights_only``).

    Raises
    ------
    CheckpointError
        if the file is missing, damaged, of another kind or of another version, or its content has another hash than it
        had when it was written
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of odd pickles; here they are errors anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, KeyError) as error:  # torch's advice to load it unsafely, or a stray number
        raise CheckpointError(f"{path} is damaged or no alflow checkpoint") from error
    except (OSError, EOFError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} is damaged or no alflow checkpoint: {reason}") from error
    if not isinstance(content, dict) or content.get("format") != format_name:
        raise CheckpointError(f"{path} holds no {format_name}")
    if content.get("version") not in versions:
        known = " and ".join(map(str, versions))
        raise CheckpointError(
            f"{path} has version {content.get('version')}; this alflow reads {known}: train again or change alflow"
        )
    written = content.pop("sha256", None)  # files of alflow 0.1 have none
    if written is not None and written != hash_of(content):
        raise CheckpointError(f"{path} is damaged: its content does not have the hash that was written with it")
    return content


def hash_of(content: Any) -> str:
    """SHA-256 of tensors and plain values, in dictionaries and sequences of any depth."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, dict):
            digest.update(f"dict {len(value)}".encode())
            for key in sorted(value):
                add(key)
                add(value[key])
        elif isinstance(value, list | tuple):
            digest.update(f"sequence {len(value)}".encode())
            for item in value:
                add(item)
        elif isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        else:
            digest.update(f"{value!r} ".encode())

    add(content)
    return digest.hexdigest()
