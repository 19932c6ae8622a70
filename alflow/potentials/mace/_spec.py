"""What a committee of MACE models is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class MaceSpec(BaseModel):
    """A committee of MACE models: small ones from scratch, or copies of a foundation model that are fine-tuned.

    Needs `pip install 'alflow[mace]'`. What is trained, how long and when it stops stands in `training`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["mace"] = Field(default="mace", description="which potential")
    foundation: Path | None = Field(
        default=None,
        description="file of a MACE model to start from, relative to the campaign file; null: small ones from scratch",
    )
    trust_foundation: bool = Field(
        default=False,
        validate_default=True,
        description="true: read the foundation model although a MACE file can execute code when it is read; only for a "
        "file whose origin you trust",
    )
    head: str | None = Field(
        default=None, description="head of a foundation model that has several; null: it has only one"
    )
    tune: Literal["all", "readouts"] = Field(
        default="all", description="weights of a foundation model that are fine-tuned"
    )
    n_members: int = Field(default=4, ge=1, le=64, description="members K")
    channels: int = Field(default=32, ge=1, le=512, description="from scratch: feature channels")
    l_hidden: int = Field(default=0, ge=0, le=2, description="from scratch: highest degree of the node features")
    l_max: int = Field(default=3, ge=1, le=4, description="from scratch: highest degree of the spherical harmonics")
    correlation: int = Field(default=3, ge=1, le=4, description="from scratch: factors in the products of a layer")
    n_layers: int = Field(default=2, ge=1, le=4, description="from scratch: message-passing layers")
    r_max: float = Field(default=5.0, gt=1.0, le=12.0, description="from scratch: cutoff radius of one layer, Å")
    learning_rate: float | None = Field(
        default=None, gt=0, description="peak learning rate of Adam; null: 0.01 from scratch, 0.001 for fine-tuning"
    )
    dtype: Literal["float32", "float64"] = Field(default="float32", description="precision of weights and training")

    @field_validator("trust_foundation")
    @classmethod
    def _is_trusted(cls, trusted: bool, info: ValidationInfo) -> bool:
        found = info.data.get("foundation")
        if found is not None and not trusted:
            raise ValueError(
                f"reading {found} can execute code, as any pickle can: if you trust its origin, "
                "write `trust_foundation: true`"
            )
        return trusted

    @property
    def rate(self) -> float:
        """The peak learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 0.01 if self.foundation is None else 0.001
