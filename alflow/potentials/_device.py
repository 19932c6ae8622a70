"""Where networks are evaluated: what this machine's environment says."""

from __future__ import annotations

import logging
import os
from functools import cache

import torch

from alflow.errors import PotentialError

DEVICE = "ALFLOW_DEVICE"
"""Environment variable: ``cpu`` (the default), ``cuda``, ``cuda:1``. It belongs to the machine, not to a campaign."""

LEAST = 32 * 2**20
"""Bytes on a GPU with which anything is begun."""

log = logging.getLogger("alflow.potentials")


def wanted_device() -> torch.device:
    """Return the device that ``ALFLOW_DEVICE`` names.

    Raises
    ------
    PotentialError
        if it names none, or one that torch does not see
    """
    wanted = os.environ.get(DEVICE, "cpu")
    kind, _, index = wanted.partition(":")
    if kind not in {"cpu", "cuda"} or (index and not index.isdigit()):
        raise PotentialError(f"{DEVICE} is {wanted!r}; write cpu, cuda, or cuda:1 for the second GPU")
    if kind == "cuda" and (not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count()):
        raise PotentialError(
            f"{DEVICE} is {wanted!r}, but torch {torch.__version__} sees {torch.cuda.device_count()} GPUs: install a "
            "CUDA build of torch, or unset the variable"
        )
    return torch.device(wanted)


def spare_bytes(device: torch.device) -> int | None:
    """Three quarters of the memory that is free on a GPU, with what torch holds there unused; None for a CPU.

    At least :data:`LEAST`, so that work on a GPU that others fill up ends in torch's own message and not in crumbs.
    """
    if device.type == "cpu":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return max(LEAST, 3 * (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)) // 4)


def uses_tf32() -> bool:
    """Whether torch rounds the factors of single-precision matrix products on a GPU to ten bits."""
    matmul = torch.backends.cuda.matmul
    # of torch 2.9 and later; there allow_tf32 cannot be read once this was written
    precision = getattr(matmul, "fp32_precision", None)
    return bool(matmul.allow_tf32) if precision is None else precision == "tf32"


def warn_of_tf32(device: torch.device) -> None:
    """Say once that forces on a GPU come out rough because somebody switched TF32 on, as some containers do."""
    if device.type != "cpu" and uses_tf32():
        _say_once()


@cache
def _say_once() -> None:
    log.warning(
        "torch is set to TF32 matrix products, so forces on the GPU are rough: unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, "
        'or call torch.set_float32_matmul_precision("highest")'
    )
