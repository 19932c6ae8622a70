"""Where networks are evaluated: what this machine's environment says."""

from __future__ import annotations

import os

import torch

from alflow.errors import PotentialError

DEVICE = "ALFLOW_DEVICE"
"""Environment variable: ``cpu`` (the default), ``cuda``, ``cuda:1``. It belongs to the machine, not to a campaign."""


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
