"""What a committee is and how it is trained: the two settings models of this room."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class CommitteeSpec(BaseModel):
    """Shape of the committee network. All members share it; they differ by seed and bootstrap weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_members: int = Field(4, ge=1, le=64, description="Number of members K trained together in one network.")
    channels: int = Field(16, ge=4, le=512, description="Feature channels per member.")
    l_max: int = Field(3, ge=1, le=4, description="Highest degree of the spherical harmonics of the atomic density.")
    l_product: int = Field(2, ge=0, le=4, description="Highest degree kept between two products; at most l_max.")
    n_layers: int = Field(
        2, ge=1, le=2, description="1: density of neighbours only; 2: one message-passing layer on top."
    )
    r_max: float = Field(5.0, gt=1.0, le=12.0, description="Cutoff radius of a layer, Å.")
    n_radial: int = Field(8, ge=2, le=32, description="Number of radial Bessel functions.")
    hidden: int = Field(32, ge=4, le=512, description="Width of the scalar readout.")
    repulsion: bool = Field(
        True, description="Add a screened nuclear repulsion inside 0.75 times the covalent bond length."
    )
    dtype: Literal["float32", "float64"] = Field("float32", description="Floating-point type of weights and training.")


class TrainingSpec(BaseModel):
    """How a committee is trained. Weights are in units of the campaign's targets squared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_epochs: int = Field(120, ge=1, description="Passes over the training structures, from scratch.")
    warm_epochs: int = Field(
        40, ge=1, description="Passes over the training structures when starting from an earlier committee."
    )
    cpu_seconds: float | None = Field(
        None,
        gt=0,
        description="Budget of processor seconds; replaces the epoch count. A budget in time is not reproducible bit by bit.",
    )
    batch_size: int = Field(8, ge=1, description="Structures per step.")
    learning_rate: float = Field(0.01, gt=0, description="Peak learning rate of Adam.")
    warm_learning_rate: float = Field(
        0.005, gt=0, description="Peak learning rate when starting from an earlier committee."
    )
    warmup_steps: int = Field(30, ge=0, description="Steps of linear growth of the learning rate.")
    ema_decay: float = Field(
        0.99, ge=0, lt=1, description="Decay per step of the exponential moving average of the weights."
    )
    gradient_clip: float = Field(
        10.0, gt=0, description="Largest norm of the gradient per member, in units of its running size."
    )
    energy_weight: float = Field(1.0, ge=0, description="Weight of (energy error per atom / target)².")
    force_weight: float = Field(1.0, ge=0, description="Weight of (force component error / target)².")
    stress_weight: float = Field(1.0, ge=0, description="Weight of (stress component error / target)².")
    validation_fraction: float = Field(
        0.1, ge=0, lt=0.9, description="Share of the structures held out for early stopping."
    )
    validation_minimum: int = Field(20, ge=2, description="Below this many structures nothing is held out.")
    validate_every: int = Field(5, ge=1, description="Epochs between two looks at the held-out structures.")
    patience: int = Field(12, ge=1, description="Looks without improvement after which training stops.")
    bootstrap_from: int = Field(50, ge=2, description="From this many structures on members see bootstrap weights.")
    checkpoint_every: int = Field(
        5, ge=1, description="Epochs between two checkpoints, when a checkpoint directory is given."
    )
