"""The folder beside a model in which an unfinished training stands."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alflow.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from alflow.structures import LabelledStructure

CALL, CHECKPOINT = "call.json", "training.ckpt"


class TrainingFolder:
    """``MODEL.training``: checkpoints of one training, and which it is; removed when the model is written.

    Parameters
    ----------
    model
        file that the training is to write
    examples, settings, seed, initial
        what decides the training: data, settings, seed, and the file of an earlier committee
    """

    def __init__(
        self,
        model: Path,
        examples: Sequence[LabelledStructure],
        settings: Sequence[BaseModel],
        *,
        seed: int,
        initial: Path | None,
    ) -> None:
        self.path = model.with_name(model.name + ".training")
        data = hashlib.sha256()
        for example in examples:
            data.update(example.structure.content_hash.encode())
            data.update(example.properties.to_bytes())
        self.call = {
            "data": data.hexdigest(),
            "settings": [one.model_dump(mode="json") for one in settings],
            "seed": seed,
            "initial": None if initial is None else hashlib.sha256(initial.read_bytes()).hexdigest(),
        }

    def open(self) -> bool:
        """Make the folder; returns whether there is a checkpoint to continue from.

        Raises
        ------
        UserError
            if another training stands there, or something else does
        """
        if self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir())):
            found = None
            with contextlib.suppress(OSError, ValueError):
                found = json.loads((self.path / CALL).read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise UserError(f"{self.path} is in the way: move it elsewhere, or choose another --output")
            differ = [name for name, value in self.call.items() if found.get(name) != value]
            if differ:
                raise UserError(
                    f"{self.path} holds an unfinished training of other {' and '.join(differ)}: repeat its command to "
                    "continue it, delete the folder to give it up, or choose another --output"
                )
            return (self.path / CHECKPOINT).is_file()
        self.path.mkdir(exist_ok=True)
        (self.path / CALL).write_text(json.dumps(self.call, indent=1) + "\n", encoding="utf-8")
        return False

    def remove(self) -> None:
        """Remove what this training has written; whatever else lies in the folder stays, and the folder with it."""
        for name in (CALL, CHECKPOINT):
            (self.path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()
