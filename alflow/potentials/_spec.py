"""What a committee is and how it is trained: the two settings models of this room."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class CommitteeSpec(BaseModel):
    """Shape of the committee network. All members share it; they differ by seed and bootstrap weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["native"] = Field(default="native", description="which potential")
    n_members: int = Field(default=4, ge=1, le=64, description="members K, trained together in one network")
    channels: int = Field(default=16, ge=4, le=512, description="feature channels per member")
    l_max: int = Field(default=4, ge=0, le=6, description="highest degree of the spherical harmonics of the density")
    l_product: int = Field(default=2, ge=0, le=4, description="highest degree kept between two products")
    l_hidden: int = Field(default=1, ge=0, le=2, description="highest degree of the features that messages carry")
    n_layers: int = Field(
        default=2, ge=1, le=2, description="1: density of neighbours only; 2: a message-passing layer on top"
    )
    r_max: float = Field(default=5.0, gt=1.0, le=12.0, description="cutoff radius of one layer, Å")
    n_radial: int = Field(default=8, ge=2, le=32, description="number of radial Bessel functions")
    hidden: int = Field(default=32, ge=4, le=512, description="width of the scalar readouts")
    repulsion: bool = Field(
        default=True, description="add a screened nuclear repulsion below 0.75 covalent bond lengths"
    )
    dtype: Literal["float32", "float64"] = Field(default="float32", description="precision of weights and training")


class TrainingSpec(BaseModel):
    """How a committee is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_epochs: int | None = Field(
        default=None, ge=1, description="passes over the training structures; null: as many as make `steps` steps"
    )
    steps: int = Field(default=500, ge=1, description="optimisation steps from scratch, where max_epochs is null")
    warm_steps: int = Field(
        default=200, ge=1, description="optimisation steps from an earlier committee, where max_epochs is null"
    )
    cpu_seconds: float | None = Field(
        default=None,
        gt=0,
        description="budget of processor seconds instead of steps; with max_epochs too, what is used up first ends it; "
        "not reproducible bit by bit",
    )
    batch_size: int = Field(default=8, ge=1, description="structures per step")
    learning_rate: float = Field(default=0.02, gt=0, description="peak learning rate of Adam from scratch")
    warm_learning_rate: float = Field(
        default=0.01, gt=0, description="peak learning rate of Adam from an earlier committee"
    )
    warmup_steps: int = Field(default=30, ge=0, description="steps over which the learning rate grows to its peak")
    ema_decay: float = Field(
        default=0.98, ge=0, lt=1, description="decay per step of the moving average of the weights"
    )
    gradient_clip: float = Field(default=5.0, gt=0, description="largest gradient, in units of its running size")
    energy_weight: float = Field(default=0.2, ge=0, description="weight of (energy error per atom / target)²")
    energy_start: float = Field(default=0.01, gt=0, le=1, description="share of energy_weight at the start")
    energy_ramp: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="fraction of the training over which the energy weight grows",
    )
    force_weight: float = Field(default=2.0, ge=0, description="weight of (force component error / target)²")
    stress_weight: float = Field(default=2.0, ge=0, description="weight of (stress component error / target)²")
    validation_fraction: float = Field(
        default=0.1, ge=0, lt=0.9, description="share of the structures held out for early stopping"
    )
    validation_from: int = Field(default=20, ge=2, description="below this many structures nothing is held out")
    validate_every: int = Field(
        default=50,
        ge=1,
        description="least steps between two looks at the held-out structures; more where these are many",
    )
    patience: int = Field(
        default=8,
        ge=1,
        description="looks without improvement, and at least a quarter of the steps, before a cool-down ends training",
    )
    bootstrap_from: int = Field(
        default=50, ge=2, description="from this many structures on members see bootstrap weights"
    )
    threads: int | None = Field(
        default=1,
        ge=1,
        description="threads of a campaign's training and prediction; 1 repeats bit by bit and suits cells below about "
        "a hundred atoms; null: as many as torch chooses",
    )
    checkpoint_seconds: float = Field(
        default=5.0, ge=0, description="seconds between two checkpoints, where a checkpoint directory is given"
    )


def changed_fields(one: BaseModel, other: BaseModel) -> list[str]:
    """Names of the settings in which two of a kind differ, one after the other as they are declared."""
    before, after = one.model_dump(), other.model_dump()
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]
