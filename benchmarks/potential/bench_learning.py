r"""Learning curves: errors against the number of training structures for densities of degree 0, 1, 2, 3.

python benchmarks/potential/bench_learning.py --data FILE --out FOLDER [--degrees 0,1,2,3] [--sizes 25,50,100,200] \
    [--seeds 0,1,2] [--steps 600]

FILE holds labelled structures as extended XYZ: a training file of Zuo et al., J. Phys. Chem. A 124, 731 (2020), or any
other. A fifth of them, the same for all, is the test set; training sets are nested random draws from the rest, another
order for every seed. All networks have the same number of weights to a few per cent: the fewer degrees, the more
channels. Everything else is the default. Finished runs are kept in FOLDER/learning.jsonl and not repeated; the table,
the slopes of log error against log size and the plot are made from that file.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from ase import Atoms
from ase.io import read

from alflow.potentials import CommitteeSpec, TrainingSpec, train_committee
from alflow.potentials._network import CommitteeNetwork, Constants
from alflow.structures import LabelledStructure


def n_weights(spec: CommitteeSpec, n_elements: int) -> int:
    """Weights of one member."""
    none = Constants(
        scale=1.0,
        neighbours=1.0,
        coordination=1.0,
        cohesion=(0.0,) * n_elements,
        density=((0.0,) * spec.n_radial,) * n_elements,
    )
    return CommitteeNetwork(spec, n_elements, none).layout.size


def same_size(l_max: int, n_elements: int) -> CommitteeSpec:
    """The network of one degree whose number of weights is nearest to that of degree 3 with 16 channels."""
    wanted = n_weights(CommitteeSpec(l_max=3), n_elements)
    specs = [CommitteeSpec(l_max=l_max, channels=c) for c in range(8, 128)]
    return min(specs, key=lambda spec: abs(n_weights(spec, n_elements) - wanted))


def run(data: list[Atoms], l_max: int, size: int, seed: int, steps: int) -> dict[str, Any]:
    """Train once and judge."""
    order = np.random.default_rng(12345).permutation(len(data))
    n_test = len(data) // 5
    test, rest = [data[i] for i in order[:n_test]], order[n_test:]
    chosen = np.random.default_rng(seed).permutation(rest)[:size]
    elements = {symbol for a in data for symbol in a.get_chemical_symbols()}
    spec = same_size(l_max, len(elements))
    training = TrainingSpec(steps=steps, batch_size=4)
    committee = train_committee([data[i] for i in chosen], spec, training, seed=seed)
    labels = [LabelledStructure.from_atoms(a).properties for a in test]
    p = committee.predict(test)
    report = committee.report
    assert report is not None
    energy = np.array([label.energy for label in labels])
    pairs = [(i, label.forces) for i, label in enumerate(labels) if label.forces is not None]
    members = [np.abs(np.concatenate([(p.forces[i][k] - f).ravel() for i, f in pairs])).mean() for k in range(4)]
    return {
        "l_max": l_max,
        "size": size,
        "seed": seed,
        "steps": steps,
        "channels": spec.channels,
        "weights": n_weights(spec, len(elements)),
        "energy": 1e3 * float(np.abs((p.energy_mean - energy) / p.n_atoms).mean()),
        "force": 1e3 * float(np.abs(np.concatenate([(p.force_mean[i] - f).ravel() for i, f in pairs])).mean()),
        "member_force": 1e3 * float(np.mean(members)),
        "cpu_seconds": report.cpu_seconds,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over the seeds, and the slope of log error against log size."""
    sizes = sorted({r["size"] for r in rows})
    lines = [
        "| l_max | channels | " + " | ".join(f"{s} structures" for s in sizes) + " | slopes |",
        "|---" * (len(sizes) + 3) + "|",
    ]
    for degree in sorted({r["l_max"] for r in rows}):
        mine = [r for r in rows if r["l_max"] == degree]
        cells, slopes = [], []
        for size in sizes:
            here = [r for r in mine if r["size"] == size]
            energy, force = ([r[k] for r in here] for k in ("energy", "force"))
            spread = f"{np.mean(energy):.1f} ± {np.std(energy):.1f}, {np.mean(force):.0f} ± {np.std(force):.0f}"
            cells.append(spread if here else "")
        for kind in ("energy", "force"):
            fit = np.polyfit(np.log([r["size"] for r in mine]), np.log([r[kind] for r in mine]), 1)
            slopes.append(f"{fit[0]:.2f}")
        lines.append(f"| {degree} | {mine[0]['channels']} | " + " | ".join(cells) + f" | {', '.join(slopes)} |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Energy and force errors against the number of structures, log-log."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogFormatter, NullFormatter

    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.6), layout="constrained")
    colours = plt.get_cmap("viridis")(np.linspace(0.0, 0.85, 4))
    for ax, kind, unit in zip(axes, ("energy", "force"), ("meV/atom", "meV/Å"), strict=True):
        for degree in sorted({r["l_max"] for r in rows}):
            mine = [r for r in rows if r["l_max"] == degree]
            sizes = sorted({r["size"] for r in mine})
            values = [[r[kind] for r in mine if r["size"] == s] for s in sizes]
            mean, low, high = ([f(v) for v in values] for f in (np.mean, np.min, np.max))
            ax.plot(sizes, mean, "o-", ms=4, color=colours[degree % 4], label=f"l_max = {degree}")
            ax.fill_between(sizes, low, high, color=colours[degree % 4], alpha=0.2, lw=0)
        ax.set(xscale="log", yscale="log", xlabel="training structures", ylabel=f"{kind} MAE, {unit}")
        ax.set_xticks(sorted({r["size"] for r in rows}), [str(s) for s in sorted({r["size"] for r in rows})])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.4)))
        ax.grid(visible=True, which="both", lw=0.3, alpha=0.5)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--degrees", default="0,1,2,3")
    parser.add_argument("--sizes", default="25,50,100,200")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    frames = read(options.data, ":", format="extxyz")
    assert isinstance(frames, list)
    file = options.out / "learning.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for seed in map(int, options.seeds.split(",")):
        for size in map(int, options.sizes.split(",")):
            for degree in map(int, options.degrees.split(",")):
                key = {"l_max": degree, "size": size, "seed": seed, "steps": options.steps}
                if any(all(r[k] == v for k, v in key.items()) for r in rows):
                    continue
                rows.append(run(frames, degree, size, seed, options.steps))
                with file.open("a") as out:
                    out.write(json.dumps(rows[-1]) + "\n")
                print(json.dumps(rows[-1]), flush=True)
    print(table(rows))
    plot(rows, options.out / "learning.png")


if __name__ == "__main__":
    main()
