"""What many elements cost: a committee trained on the same made-up cells with 1, 4, 6, 20 or 89 elements in them.

python benchmarks/potential/bench_elements.py [--elements 1,4,6,20,89] [--members 4] [--channels 16] [--plain]

120 rattled cells of 8 atoms, 18 neighbours each, elements drawn anew for every atom; speed does not depend on labels.
Every number of elements runs in a process of its own, for the peak of its memory. CPU time of one thread, float32. A
step is one of batch 8; up to six elements have a radial channel each, above they share six learned ones. Needs no data.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

N_CELLS, N_ATOMS, STEPS = 120, 8, 60


def measure(n_elements: int, members: int, channels: int) -> None:
    """Train and predict once, and print one row."""
    import numpy as np
    import torch
    from ase import Atoms
    from ase.build import bulk

    from alflow.potentials import CommitteeSpec, TrainingSpec, train_committee

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    known = rng.permutation(np.arange(1, 90))[:n_elements]
    frames: list[Atoms] = []
    for k in range(N_CELLS):
        atoms = bulk("Cu", "fcc", a=4.2, cubic=True) * (1, 1, 2)
        atoms.positions += rng.normal(size=atoms.positions.shape) * 0.05
        species = rng.choice(known, N_ATOMS)
        if k * N_ATOMS < n_elements:  # each is there at least once
            some = known[k * N_ATOMS : (k + 1) * N_ATOMS]
            species[: len(some)] = some
        atoms.numbers = species
        atoms.info["REF_energy"] = float(rng.normal())
        atoms.arrays["REF_forces"] = rng.normal(size=atoms.positions.shape) * 0.3
        frames.append(atoms)
    spec = CommitteeSpec(n_members=members, channels=channels, repulsion=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    train_committee(frames, spec, TrainingSpec(steps=2, validation_fraction=0))  # compiles
    begun = time.process_time()
    committee = train_committee(frames, spec, TrainingSpec(steps=STEPS, validation_fraction=0))
    assert committee.report is not None
    training = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun = time.process_time()
    committee.predict(frames)
    predicting = time.process_time() - begun
    size, step = committee.core.weights.shape[1], 1e3 * committee.report.cpu_seconds / STEPS
    print(
        f"{n_elements:9d} {size:16d} {step:10.1f} {training:12.1f} {N_CELLS * N_ATOMS / predicting:12.0f}"
        f" {before:11.0f} {peak:10.0f}"
    )


def main() -> None:
    """Print one row per number of elements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--elements", default="1,4,6,20,89")
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--plain", action="store_true", help="plain torch instead of compiled kernels")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.plain:
        os.environ["ALFLOW_KERNELS"] = "off"
    if chosen.one:
        measure(chosen.one, chosen.members, chosen.channels)
        return
    print(f"{chosen.members} members of {chosen.channels} channels, {'plain torch' if chosen.plain else 'kernels'}")
    print(" elements  weights/member    ms/step  training, s      atoms/s  MB at start    MB peak")
    for n in chosen.elements.split(","):
        sizes = ["--members", str(chosen.members), "--channels", str(chosen.channels)]
        subprocess.run([sys.executable, __file__, "--one", n, *sizes], check=True)


if __name__ == "__main__":
    main()
