r"""What the distance from the data catches that the spread of the members misses.

python benchmarks/potential/bench_far.py --data FOLDER [--seconds 200] [--seeds 0,1,2]

FOLDER holds three samples of labelled crystals of 80 to 89 elements as extended XYZ: FOLDER/*mptrj-random*,
*mptrj-highest-stress*, *alexandria-random* (published with MatterSim, MIT). A committee trains on 700 structures of the
first; 150 more calibrate it and 150 test it; all of the others are far from its data. Per set and kind: the share of
errors beyond the 90 % interval and beyond three times that, with the spread alone and with the larger of spread and
distance.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from ase.io import read

from alflow.potentials import (
    CommitteeSpec,
    Kind,
    Spreads,
    Targets,
    TrainingSpec,
    actual_errors,
    fit_calibration,
    train_committee,
)
from alflow.structures import LabelledStructure

TARGETS = Targets(energy=0.05, force=0.1, stress=0.01)
SETS = {"like the data": "*mptrj-random*", "highest stress": "*highest-stress*", "Alexandria": "*alexandria*"}


def load(folder: Path, pattern: str) -> list[LabelledStructure]:
    frames = read(next(folder.glob(pattern)), ":", format="extxyz")
    assert isinstance(frames, list)
    return [LabelledStructure.from_atoms(a) for a in frames]


def without_distance(spread: Spreads) -> Spreads:
    return Spreads(energy=spread.energy, force=spread.force, stress=spread.stress)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples = {name: load(options.data, pattern) for name, pattern in SETS.items()}
    found: dict[tuple[str, Kind], list[list[float]]] = {}
    for seed in map(int, options.seeds.split(",")):
        order = np.random.default_rng(seed).permutation(len(samples["like the data"]))
        near = [samples["like the data"][i] for i in order]
        training = TrainingSpec(cpu_seconds=options.seconds)
        committee = train_committee(near[:700], CommitteeSpec(), training, targets=TARGETS, seed=seed)
        parts = {"calibration": near[700:850], **samples, "like the data": near[850:]}
        judged = {}
        for name, rows in parts.items():
            known = [r for r in rows if set(r.structure.elements) <= set(committee.elements)]
            p = committee.predict([r.structure for r in known])
            judged[name] = (p.spreads, actual_errors(p.means, [r.properties for r in known], p.spreads))
        spread, error = judged.pop("calibration")
        stream = np.ones(len(spread), dtype=bool)
        both = fit_calibration(spread, error, stream=stream)
        alone = fit_calibration(without_distance(spread), error, stream=stream)
        for name, (spread, error) in judged.items():
            for kind in Kind:
                e = error.of(kind)
                usable = np.isfinite(e) & np.isfinite(spread.of(kind))
                row = [float(np.mean(spread.distances > 1.0)), 1e3 * float(np.median(e[usable]))]
                for calibration, given in ((alone, without_distance(spread)), (both, spread)):
                    width = calibration.intervals(calibration.apply(given)).of(kind)
                    row += [float(np.mean((e > k * width)[usable])) for k in (1, 3)]
                found.setdefault((name, kind), []).append(row)
        print(f"seed {seed}: {committee.report}"[:200], flush=True)
    heads = ("set", "kind", "beyond the data", "median error, meV", "outside, spread", "with distance")
    print(f"| {' | '.join((*heads, 'far outside, spread', 'with distance'))} |")
    print("|---|---|---|---|---|---|---|---|")
    for (name, kind), rows_ in found.items():
        m, s = np.mean(rows_, axis=0), np.std(rows_, axis=0)
        cells = [f"{100 * m[i]:.1f} ± {100 * s[i]:.1f} %" for i in (2, 4, 3, 5)]
        print(f"| {name} | {kind.value} | {100 * m[0]:.0f} % | {m[1]:.3g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
