r"""How many members, and what warm starts do to the spread.

python benchmarks/potential/bench_committee.py members --data FILE [--members 4,8,16] [--seconds 100] [--seeds 0,1,2]
python benchmarks/potential/bench_committee.py rounds --data FILE [--rounds 5] [--seeds 0,1,2]

FILE holds labelled structures as extended XYZ, a thousand or more. `members` trains committees of several sizes for the
same CPU time on 300 of them, calibrates on 300 others and judges error and spread on 600 more. `rounds` adds 40
structures to 60 five times; one committee starts from the last one every time, the other from scratch.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from ase import Atoms
from ase.io import read

from alflow.potentials import (
    CommitteeSpec,
    Kind,
    NativeCommittee,
    TrainingSpec,
    actual_errors,
    coverage,
    fit_calibration,
    train_committee,
)
from alflow.structures import LabelledStructure


def draw(frames: list[Atoms], n: int, seed: int) -> list[LabelledStructure]:
    """Some of the structures, in a random order."""
    order = np.random.default_rng(seed).permutation(len(frames))[:n]
    return [LabelledStructure.from_atoms(_labels_only(frames[i])) for i in order]


def _labels_only(atoms: Atoms) -> Atoms:
    """Energy and forces, whatever else the file holds: its stresses may have another unit or sign."""
    copy = atoms.copy()
    copy.calc = None
    copy.info = {"REF_energy": atoms.info.get("REF_energy", None)}
    if copy.info["REF_energy"] is None:
        copy.info["REF_energy"] = atoms.get_potential_energy()
    forces = atoms.arrays.get("REF_forces")
    copy.arrays["REF_forces"] = atoms.get_forces() if forces is None else forces
    return copy


def judge(committee: NativeCommittee, rows: list[LabelledStructure], n_fit: int) -> dict[str, float]:
    """Errors (meV/atom, meV/Å), and quality of the spread calibrated on the first rows, judged on the others."""
    p = committee.predict([r.structure for r in rows], stress=False)
    error = actual_errors(p.means, [r.properties for r in rows], p.spreads)
    calibration = fit_calibration(p.spreads[:n_fit], error[:n_fit], stream=np.ones(n_fit, dtype=bool))
    judged = coverage(calibration, p.spreads[n_fit:], error[n_fit:])
    forces = [
        np.abs(mean - r.properties.forces).ravel()
        for mean, r in zip(p.force_mean, rows, strict=True)
        if r.properties.forces is not None
    ]
    result = {"E": 1e3 * float(np.nanmean(error.energy)), "F": 1e3 * float(np.concatenate(forces).mean())}
    for kind, name in ((Kind.ENERGY, "E"), (Kind.FORCE, "F")):
        found, fitted = judged[kind], calibration.of(kind)
        assert fitted is not None
        for key in ("spearman", "nll", "ence", "coverage90"):
            value = getattr(found, key)
            result[f"{name} {key}"] = float("nan") if value is None else value
        result[f"{name} a"] = fitted.a
    return result


def report(title: str, rows: list[dict[str, float]]) -> None:
    """Mean and standard deviation."""
    cells = [f"{k} {np.mean([r[k] for r in rows]):.3g} ± {np.std([r[k] for r in rows]):.2g}" for k in rows[0]]
    print(f"{title}: {'; '.join(cells)}", flush=True)


def compare_members(frames: list[Atoms], options: argparse.Namespace, seeds: list[int]) -> None:
    for members in map(int, options.members.split(",")):
        found = []
        for seed in seeds:
            data = draw(frames, 1200, seed)
            spec = CommitteeSpec(n_members=members)
            training = TrainingSpec(cpu_seconds=options.seconds, batch_size=4)
            committee = train_committee(data[:300], spec, training, seed=seed)
            found.append(judge(committee, data[300:1200], 300))
        report(f"{members} members, {options.seconds:g} CPU-s, {len(seeds)} seeds", found)


def compare_rounds(frames: list[Atoms], options: argparse.Namespace, seeds: list[int]) -> None:
    training = TrainingSpec(batch_size=4)
    for mode in ("scratch", "warm"):
        by_round: list[list[dict[str, float]]] = [[] for _ in range(options.rounds)]
        for seed in seeds:
            data = draw(frames, 60 + 40 * options.rounds + 900, seed)
            committee: NativeCommittee | None = None
            for k in range(options.rounds):
                initial = committee if mode == "warm" else None
                committee = train_committee(
                    data[: 60 + 40 * k], training=training, initial=initial, seed=100 * seed + k
                )
                assert committee.report is not None
                judged = judge(committee, data[-900:], 300)
                by_round[k].append(judged | {"CPU-s": committee.report.cpu_seconds})
        for k, rows in enumerate(by_round):
            report(f"{mode}, round {k}, {60 + 40 * k} structures", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("members", "rounds"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--members", default="4,8,16")
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    frames = read(options.data, ":", format="extxyz")
    assert isinstance(frames, list)
    (compare_members if options.what == "members" else compare_rounds)(frames, options, seeds)


if __name__ == "__main__":
    main()
