"""What the workers of the comparison share: data, clock, training loop, errors, speed. It knows no potential.

A worker trains one peer in one setting on one element from one seed for one budget of CPU time, and writes one JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import resource
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import read
from numpy.typing import NDArray

R_MAX = 5.0
FIRST_CHECKPOINT = 10.0
Predicted = list[tuple[float, NDArray[np.float64]]]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is trained on what, from which seed, for how many CPU-seconds."""

    data: Path
    out: Path
    setting: str
    element: str
    seed: int
    seconds: float

    @classmethod
    def from_command_line(cls, description: str | None) -> Run:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--data", type=Path, required=True)
        parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
        parser.add_argument("--setting", required=True)
        parser.add_argument("--element", required=True)
        parser.add_argument("--seed", type=int, required=True)
        parser.add_argument("--seconds", type=float, required=True)
        return cls(**vars(parser.parse_args()))

    def structures(self, part: str) -> list[Atoms]:
        """Labelled structures of the published `part`: training or test."""
        frames = read(self.data / f"{self.element}_{part}.xyz.gz", ":", format="extxyz")
        assert isinstance(frames, list)
        for atoms in frames:
            atoms.calc = None
        return frames


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a peer is trained: Adam on w_E (ΔE/n)² + w_F ΔF², the average of the weights is what counts."""

    batch: int
    force_weight: float
    energy_weight: float
    late_energy_weight: float | None = None
    late_from: float = 1.0
    late_rate: float | None = None
    rate: float = 0.01
    cosine: bool = False
    """Falls to zero at the end of the budget, after 50 steps of warming up."""
    plateau: tuple[float, int, float] | None = None
    """Factor, patience in epochs and relative threshold, judged on a tenth of the training structures."""
    average: float = 0.99
    amsgrad: bool = False
    clip: float | None = None

    def weights(self, share: float) -> tuple[float, float]:
        late = self.late_energy_weight is not None and share >= self.late_from
        return (self.late_energy_weight or 0.0) if late else self.energy_weight, self.force_weight

    def rate_at(self, share: float, step: int) -> float:
        if self.late_rate is not None and share >= self.late_from:
            return self.late_rate
        if self.cosine:
            return max(self.rate * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * share)), 1e-6)
        return self.rate


# One loss and one schedule for the small settings of every peer, as long as the budget is.
SMALL = Recipe(
    batch=4,
    force_weight=100,
    energy_weight=1,
    late_energy_weight=1000,
    late_from=0.7,
    cosine=True,
    amsgrad=True,
    clip=10,
)


@dataclass(kw_only=True)
class Clock:
    """CPU time of this process without what was paused."""

    begun: float = field(default_factory=time.process_time)
    paused_for: float = 0.0

    @property
    def spent(self) -> float:
        return time.process_time() - self.begun - self.paused_for

    @contextmanager
    def paused(self) -> Iterator[None]:
        at = time.process_time()
        yield
        self.paused_for += time.process_time() - at


class Peer(ABC):
    """A potential as its own package builds it; the loop below trains it."""

    model: torch.nn.Module

    @abstractmethod
    def prepare(self, structures: list[Atoms]) -> list[Any]:
        """Structures with their neighbours, as the package keeps them."""

    @abstractmethod
    def evaluate(self, graphs: list[Any], *, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Energies (n,) eV and forces (n_atoms, 3) eV/Å of a batch."""

    def groups(self) -> list[dict[str, Any]]:
        """Parameters as the optimiser wants them."""
        return [{"params": list(self.model.parameters())}]


def checkpoints(budget: float) -> list[float]:
    """Growing times at which the test set is judged; the last is the budget."""
    doubled = [FIRST_CHECKPOINT * 2**k for k in range(32)]
    return [t for t in doubled if t < 0.95 * budget] + [budget]


def errors(structures: list[Atoms], found: Predicted) -> dict[str, float]:
    """Errors of energies (meV/atom) and force components (meV/Å)."""
    pairs = list(zip(structures, found, strict=True))
    energy = 1e3 * np.array([(e - a.info["REF_energy"]) / len(a) for a, (e, _) in pairs])
    force = 1e3 * np.concatenate([(f - a.arrays["REF_forces"]).ravel() for a, (_, f) in pairs])
    return {
        "energy_mae": float(np.abs(energy).mean()),
        "energy_rmse": float(np.sqrt((energy**2).mean())),
        "force_mae": float(np.abs(force).mean()),
        "force_rmse": float(np.sqrt((force**2).mean())),
    }


def predict(peer: Peer, structures: list[Atoms], graphs: list[Any], batch: int) -> Predicted:
    """Energies and forces of structures whose neighbours are known."""
    found: Predicted = []
    for k in range(0, len(graphs), batch):
        energy, forces = peer.evaluate(graphs[k : k + batch], training=False)
        ends = np.cumsum([len(a) for a in structures[k : k + batch]])[:-1]
        parts = np.split(forces.detach().double().numpy(), ends)
        found += list(zip(energy.detach().double().tolist(), parts, strict=True))
    return found


def train(peer: Peer, recipe: Recipe, run: Run) -> dict[str, Any]:
    """Train for the budget of CPU time, counted from the first epoch; judging the test set is not counted.

    What a package compiles at its first calls is not counted either.
    """
    structures, test = run.structures("training"), run.structures("test")
    rng = np.random.default_rng(run.seed)
    held = set(rng.permutation(len(structures))[: len(structures) // 10 if recipe.plateau else 0].tolist())
    held_out = [structures[k] for k in sorted(held)]
    structures = [a for k, a in enumerate(structures) if k not in held]
    graphs, held_graphs, test_graphs = (peer.prepare(x) for x in (structures, held_out, test))
    parameters: list[torch.Tensor] = [p for p in peer.model.parameters() if p.requires_grad]
    average: list[torch.Tensor] = [p.detach().clone() for p in parameters]
    optimiser = torch.optim.Adam(peer.groups(), lr=recipe.rate, amsgrad=recipe.amsgrad)
    plateau = Plateau(*recipe.plateau) if recipe.plateau else None
    factor, due, curve, step = 1.0, checkpoints(run.seconds), [], 0

    for _ in range(4):
        loss(peer, graphs[: recipe.batch], structures[: recipe.batch], recipe.weights(0.0)).backward()
        predict(peer, test[: recipe.batch], test_graphs[: recipe.batch], recipe.batch)
    started, clock = time.monotonic(), Clock()
    while due:
        order = rng.permutation(len(structures))
        for rows in np.split(order, range(recipe.batch, len(order), recipe.batch)):
            share = clock.spent / run.seconds
            for group in optimiser.param_groups:
                group["lr"] = factor * recipe.rate_at(share, step)
            optimiser.zero_grad(set_to_none=True)
            loss(peer, [graphs[r] for r in rows], [structures[r] for r in rows], recipe.weights(share)).backward()
            if recipe.clip is not None:
                torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
            optimiser.step()
            step += 1
            with torch.no_grad():
                torch._foreach_lerp_(average, parameters, 1 - min(recipe.average, (1 + step) / (10 + step)))
            if clock.spent >= due[0]:
                point = {"cpu": clock.spent, "steps": step, "epochs": step * recipe.batch / len(order)}
                with clock.paused(), averaged(parameters, average):
                    curve.append(point | errors(test, predict(peer, test, test_graphs, recipe.batch)))
                print(json.dumps(curve[-1]), flush=True)
                due = [t for t in due if t > clock.spent]
                if not due:
                    break
        if due and plateau is not None:
            with averaged(parameters, average):
                factor = plateau.factor(held_out, predict(peer, held_out, held_graphs, recipe.batch))
    spent, peak = clock.spent, peak_mib()
    return {
        "curve": curve,
        "structures_per_cpu_s": step * recipe.batch / spent,
        "peak_mib": peak,
        "wall": time.monotonic() - started,
        "parameters": sum(p.numel() for p in parameters),
        "atoms_per_cpu_s": atoms_per_cpu_s(run.element, lambda c: predict(peer, c, peer.prepare(c), len(c))),
    }


def loss(peer: Peer, graphs: list[Any], structures: list[Atoms], weights: tuple[float, float]) -> torch.Tensor:
    """w_E (ΔE/n)² + w_F ΔF², as both MACE and NequIP define it."""
    energy, forces = peer.evaluate(graphs, training=True)
    n_atoms = torch.tensor([len(a) for a in structures])
    wanted = torch.tensor([a.info["REF_energy"] for a in structures], dtype=torch.float64)
    wanted_forces = torch.from_numpy(np.concatenate([a.arrays["REF_forces"] for a in structures]))
    return (
        weights[0] * (((energy - wanted) / n_atoms) ** 2).mean()
        + weights[1] * ((forces - wanted_forces.to(forces)) ** 2).mean()
    )


@dataclass(kw_only=False)
class Plateau:
    """Lowers the learning rate where the errors of held-out structures (eV per cell + eV/Å) stop falling."""

    reduce_by: float
    patience: int
    threshold: float
    current: float = 1.0
    best: float = math.inf
    waited: int = 0

    def factor(self, structures: list[Atoms], found: Predicted) -> float:
        pairs = list(zip(structures, found, strict=True))
        energy = np.mean([abs(e - a.info["REF_energy"]) for a, (e, _) in pairs])
        force = np.abs(np.concatenate([(f - a.arrays["REF_forces"]).ravel() for a, (_, f) in pairs])).mean()
        if energy + force < self.best * (1 - self.threshold):
            self.best, self.waited = float(energy + force), 0
        else:
            self.waited += 1
        if self.waited > self.patience:
            self.current, self.waited = self.current * self.reduce_by, 0
        return self.current


@contextmanager
def averaged(live: list[torch.Tensor], average: list[torch.Tensor]) -> Iterator[None]:
    """The averaged weights in the place of the live ones."""
    kept = [p.detach().clone() for p in live]
    with torch.no_grad():
        torch._foreach_copy_(live, average)
    yield
    with torch.no_grad():
        torch._foreach_copy_(live, kept)


def cells(element: str) -> list[Atoms]:
    """Eight rattled cells of 54 to 64 atoms."""
    made = []
    for seed in range(8):
        atoms = bulk(element, cubic=True)
        n = round((60 / len(atoms)) ** (1 / 3))
        atoms = atoms * (n, n, n)
        atoms.rattle(0.1, seed=seed)
        made.append(atoms)
    return made


def atoms_per_cpu_s(element: str, answer: Callable[[list[Atoms]], object]) -> float:
    """Energies and forces of eight cells from their positions on, neighbours included; the median of seven."""
    batch, times = cells(element), []
    for _ in range(9):
        begun = time.process_time()
        answer(batch)
        times.append(time.process_time() - begun)
    return sum(map(len, batch)) / float(np.median(times[2:]))


def sgemm() -> float:
    """Best GFLOP/s of a matrix product of torch on one core."""
    a, times = torch.randn(1024, 1024, dtype=torch.float32), []
    for _ in range(12):
        begun = time.process_time()
        a @ a
        times.append(time.process_time() - begun)
    return 2 * 1024**3 / min(times) / 1e9


def peak_mib() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def work(peer: str, package: str, description: str | None, job: Callable[[Run], dict[str, Any]]) -> None:
    """Do one run from the command line and write its result, with the rate of a matrix product before and after."""
    torch.set_num_threads(1)
    run = Run.from_command_line(description)
    before, load = sgemm(), os.getloadavg()[0]
    result = job(run)
    result |= {
        "peer": peer,
        "version": importlib.metadata.version(package),
        "torch": torch.__version__,
        "setting": run.setting,
        "element": run.element,
        "seed": run.seed,
        "seconds": run.seconds,
        "processor": processor(),
        "sgemm": [before, sgemm()],
        "load": [load, os.getloadavg()[0]],
    }
    partial = run.out.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(run.out)


def processor() -> str:
    """What the system calls its processor."""
    listing = Path("/proc/cpuinfo")
    names = (
        [x.split(":", 1)[1].strip() for x in listing.read_text().splitlines() if "model name" in x]
        if listing.exists()
        else []
    )
    return names[0] if names else platform.processor()
