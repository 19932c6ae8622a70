r"""Errors of a committee trained for a given CPU time on published data, and how well its spread tells them.

python benchmarks/potential/bench_accuracy.py --data FOLDER [--element Si] [--seconds 300] [--seeds 0,1,2] \
    [--training '{"energy_weight": 0.1}']

FOLDER holds ELEMENT_training.xyz.gz and ELEMENT_test.xyz.gz of Zuo et al., J. Phys. Chem. A 124, 731 (2020), with their
split, as extended XYZ with REF_energy and REF_forces. One thread; CPU time of training, all of it counted from the
first epoch. Settings are the defaults but for what the options name.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from scipy.stats import spearmanr

from alflow.potentials import CommitteeSpec, NativeCommittee, TrainingSpec, train_committee


def load(path: Path) -> list[Atoms]:
    """Labelled structures of one file."""
    frames = read(path, ":", format="extxyz")
    assert isinstance(frames, list)
    for atoms in frames:
        atoms.calc = None
    return frames


def judge(committee: NativeCommittee, test: list[Atoms]) -> dict[str, float]:
    """Mean absolute errors (meV/atom, meV/Å) and rank correlations of spread and error per structure."""
    p = committee.predict(test)
    energy = np.abs(p.energy_mean - [a.info["REF_energy"] for a in test]) / p.n_atoms
    differences = [mean - a.arrays["REF_forces"] for mean, a in zip(p.force_mean, test, strict=True)]
    worst = [np.linalg.norm(d, axis=1).max() for d in differences]
    return {
        "energy": 1e3 * float(energy.mean()),
        "force": 1e3 * float(np.abs(np.concatenate([d.ravel() for d in differences])).mean()),
        "energy_rank": float(spearmanr(p.energy_spread, energy).statistic) if p.n_members > 1 else float("nan"),
        "force_rank": float(spearmanr(p.force_spread, worst).statistic) if p.n_members > 1 else float("nan"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--element", default="Si")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--members", type=int, default=CommitteeSpec().n_members)
    parser.add_argument("--channels", type=int, default=CommitteeSpec().channels)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--training", type=json.loads, default={}, help="further settings of the training, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, test = (load(options.data / f"{options.element}_{part}.xyz.gz") for part in ("training", "test"))
    spec = CommitteeSpec(n_members=options.members, channels=options.channels)
    training = TrainingSpec(cpu_seconds=options.seconds, batch_size=options.batch, **options.training)
    shape = f"{options.members} × {options.channels} channels"
    print(f"{options.element}, {shape}, {options.seconds:g} CPU-s, {options.training}")
    print(f"{'seed':>4s} {'E meV/atom':>10s} {'F meV/Å':>9s} {'rank E':>7s} {'rank F':>7s} {'structures/CPU-s':>17s}")
    rows = []
    for seed in map(int, options.seeds.split(",")):
        begun = time.process_time()
        committee = train_committee(train, spec, training, seed=seed)
        report = committee.report
        assert report is not None
        rate = report.epochs * (len(train) - len(report.held_out)) / report.cpu_seconds
        found = judge(committee, test)
        rows.append([*found.values(), rate])
        shown = f"{found['energy']:10.2f} {found['force']:9.1f} {found['energy_rank']:7.2f} {found['force_rank']:7.2f}"
        print(f"{seed:4d} {shown} {rate:17.1f}   ({time.process_time() - begun:.0f} CPU-s in all)", flush=True)
    mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
    print(f"mean {mean[0]:10.2f} {mean[1]:9.1f} {mean[2]:7.2f} {mean[3]:7.2f} {mean[4]:17.1f}")
    print(f"  sd {spread[0]:10.2f} {spread[1]:9.1f} {spread[2]:7.2f} {spread[3]:7.2f} {spread[4]:17.1f}")


if __name__ == "__main__":
    main()
