"""Adam with a moving average of the weights, on the one matrix of all weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

BETA1, BETA2, EPSILON = 0.9, 0.99, 1e-12


@dataclass(kw_only=True, eq=False)
class OptimiserState:
    """Everything that a resumed training needs; tensors are (K, P).

    Parameters
    ----------
    weights, average
        current weights and their exponential moving average
    first, second
        Adam's moments
    step
        steps done
    """

    weights: torch.Tensor
    average: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    step: int = 0

    @classmethod
    def start(cls, weights: torch.Tensor) -> OptimiserState:
        """Begin at given weights."""
        zeros = torch.zeros_like(weights)
        return cls(weights=weights.clone(), average=weights.clone(), first=zeros, second=zeros.clone())

    def update(self, gradient: torch.Tensor, rate: float, ema_decay: float, clip: float) -> None:
        """One step of Adam (Kingma and Ba, 2015) in place, each member clipped by its own gradient's running size.

        Parameters
        ----------
        gradient
            (K, P)
        rate
            learning rate
        ema_decay
            of the moving average, warmed up over the first steps
        clip
            a gradient longer than this many times its running size is shortened to it
        """
        self.step += 1
        if self.step > 10:
            usual = (self.second.sum(1) / (1 - BETA2 ** (self.step - 1))).sqrt()
            length = gradient.norm(dim=1)
            gradient = gradient * (clip * usual / length.clamp(min=1e-30)).clamp(max=1.0).unsqueeze(1)
        self.first.lerp_(gradient, 1 - BETA1)
        self.second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        corrected = rate * math.sqrt(1 - BETA2**self.step) / (1 - BETA1**self.step)
        self.weights.addcdiv_(self.first, self.second.sqrt().add_(EPSILON), value=-corrected)
        decay = min(ema_decay, (1 + self.step) / (10 + self.step))
        self.average.lerp_(self.weights, 1 - decay)


def learning_rate(peak: float, step: int, warmup_steps: int, progress: float) -> float:
    """Linear warm-up over the first steps, then a cosine down to a hundredth of the peak."""
    warm = min(1.0, (step + 1) / max(warmup_steps, 1))
    return peak * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
