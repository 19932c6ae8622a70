"""How fast committees train and predict on one core, beside the rate of a plain matrix product in the same run.

python benchmarks/potential/bench_speed.py [--members 1,4] [--channels 16,32] [--plain] [--spec JSON]

64-atom silicon cells (made up; speed does not depend on labels), cutoff 5 Å, energies, forces and stresses, float32.
CPU time of one thread; the median, and the range over the repeats. Needs no data.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from alflow.potentials import CommitteeSpec
from alflow.potentials._allocator import keep_freed_memory
from alflow.potentials._core import CommitteeCore
from alflow.potentials._engine import Engine, KernelEngine, PlainEngine, kernel_state
from alflow.potentials._geometry import EdgeList
from alflow.potentials._network import CommitteeNetwork, Constants
from alflow.structures import Structure

BATCH, PREDICTED = 4, 8


def cells(n: int) -> list[Atoms]:
    """Rattled, slightly strained diamond cells of 64 atoms."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n):
        atoms = bulk("Si", a=5.43, cubic=True) * (2, 2, 2)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(size=(3, 3)) * 0.01), scale_atoms=True)
        atoms.positions += rng.normal(size=atoms.positions.shape) * 0.1
        found.append(atoms)
    return found


def cpu_seconds(call: Callable[[], object], repeats: int) -> list[float]:
    """CPU time of each call, after two that do not count."""
    times = []
    for k in range(repeats + 2):
        begun = time.process_time()
        call()
        if k >= 2:
            times.append(time.process_time() - begun)
    return times


def rate(count: float, times: Sequence[float]) -> str:
    """Median and range of a rate."""
    return f"{count / np.median(times):8.1f} ({count / max(times):.1f}–{count / min(times):.1f})"


def sgemm(repeats: int) -> float:
    """Best GFLOP/s of a matrix product of torch."""
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / min(cpu_seconds(lambda: a @ a, repeats)) / 1e9


def mixing_flops(spec: CommitteeSpec, network: CommitteeNetwork, n_atoms: int) -> float:
    """Operations of a training step in products of features with weights; those of components are not counted.

    Values, their gradients, then values and tangents, and for both of these gradients of features and of weights: eight
    times one pass over the atoms.
    """
    c, products = spec.channels, network.square.n_paths
    size = (spec.l_max + 1) ** 2
    per_atom = size * network.n_species * spec.n_radial * c
    for cube in network.cube:
        per_atom += sum((2 * d + 1) * n * c * c for d, n in enumerate(products))
        for d, n in enumerate(cube.n_paths):
            kept = products[d] if d < len(products) else 0
            paths = 1 + kept + n + (network.l_product + 1 if d == 0 else 0)
            per_atom += (2 * d + 1) * paths * c * c
        per_atom += c * spec.hidden
    if spec.n_layers == 2:
        per_atom += 2 * c * c + 2 * (network.l_hidden + 1) ** 2 * c * c
    return 2.0 * 8 * spec.n_members * n_atoms * per_atom


def measure(spec: CommitteeSpec, make: Callable[..., Engine], repeats: int) -> tuple[list[float], list[float], float]:
    """CPU seconds of a training step on four cells and of a prediction of eight from neighbours on; operations."""
    numbers = np.array([14])
    edges = [EdgeList.of(Structure.from_atoms(a), numbers, spec.r_max) for a in cells(PREDICTED)]
    density = (tuple(float(x) for x in np.linspace(0.5, 0.1, spec.n_radial)),)
    constants = Constants(scale=1.0, neighbours=28.0, coordination=10.0, cohesion=(0.0,), density=density)
    network = CommitteeNetwork(spec, 1, constants)
    weights = network.layout.initial(spec.n_members, 0, torch.float32)
    engine = make(network, numbers, torch.float32)
    geometry = engine.geometry(edges)

    def train() -> None:
        leaf = weights.clone().requires_grad_()
        out = engine.evaluate(leaf, geometry.batch(np.arange(BATCH)), training=True)
        assert out.forces is not None
        assert out.virial is not None
        loss = (out.energy**2).mean() + (out.forces**2).mean() + (out.virial**2).mean()
        torch.autograd.grad(loss, leaf)

    core = CommitteeCore(spec=spec, numbers=numbers, constants=constants, references=np.zeros(1), weights=weights)
    core.__dict__["engine"] = engine
    core = core.learn_familiar(edges)  # a prediction tells how far from the training atoms it is, too
    core.__dict__["engine"] = engine
    flops = mixing_flops(spec, network, 64 * BATCH)
    return cpu_seconds(train, repeats), cpu_seconds(lambda: core.predict(edges), repeats), flops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", default="1,4")
    parser.add_argument("--channels", default="16,32")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--spec", type=json.loads, default={}, help="other sizes as JSON, e.g. '{\"l_max\": 3}'")
    parser.add_argument("--plain", action="store_true", help="plain torch as well (slow)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    ceiling = sgemm(options.repeats)
    print(f"kernels: {kernel_state(CommitteeSpec())[1]}; sgemm {ceiling:.0f} GFLOP/s on one core")
    print(f"{'':24s}{'structures trained per CPU-s':>34s}{'atoms predicted per CPU-s':>34s}  share of sgemm, training")
    for channels in map(int, options.channels.split(",")):
        for members in map(int, options.members.split(",")):
            spec = CommitteeSpec(channels=channels, n_members=members, **options.spec)
            for name, make in [("kernels", KernelEngine)] + [("plain torch", PlainEngine)] * options.plain:
                train, predict, flops = measure(spec, make, options.repeats)
                what, share = f"{members} × {channels}, {name}", flops / np.median(train) / 1e9 / ceiling
                rates = f"{rate(BATCH, train):>34s}{rate(64 * PREDICTED, predict):>34s}"
                print(f"{what:24s}{rates}{share:26.0%}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"sgemm again {sgemm(options.repeats):.0f} GFLOP/s; largest memory of the process {peak:.0f} MiB")


if __name__ == "__main__":
    main()
