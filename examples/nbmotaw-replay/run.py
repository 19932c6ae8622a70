"""Replay real DFT labels and compare the committee's choice with random choice.

    python examples/nbmotaw-replay/run.py PATH/maml_NbMoTaW.extxyz.gz

Any file of labelled structures that alflow reads will do. Structures whose ``config_type`` ends in ``_Test`` are the
test set; without such structures a fifth of the file is held out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alflow.backtest import BacktestProgress, BacktestResult, Strategy, backtest, prepare_pool
from alflow.potentials import CommitteeSpec, Targets, TrainingSpec
from alflow.structures import read_structures

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> BacktestResult:
    """Run the replay and write ``result.json`` and ``learning-curve.png``."""
    options = parse(arguments)
    structures = list(read_structures(options.labels))
    test = [atoms for atoms in structures if str(atoms.info.get("config_type", "")).endswith(options.test_suffix)]
    pool = [atoms for atoms in structures if not str(atoms.info.get("config_type", "")).endswith(options.test_suffix)]
    say(f"{len(structures)} labelled structures, {len(test)} of them marked as test set")
    prepared = prepare_pool(pool, test=test or None, max_pool=options.max_pool, max_test=options.max_test)
    sizes = [len(rows) for rows in (prepared.pool, prepared.leaders, prepared.test)]
    say("{} to choose from, {} of them not redundant; tested on {}".format(*sizes))
    options.output.mkdir(parents=True, exist_ok=True)
    result = backtest(
        prepared,
        strategies=options.strategies,
        n_initial=options.initial,
        batch=options.batch,
        budget=options.budget,
        seeds=range(options.seeds),
        committee=CommitteeSpec(n_members=4, channels=options.channels, l_max=2),
        training=TrainingSpec(steps=options.steps),
        # all of the pool was computed once, so nothing in it is implausible
        targets=Targets(energy=0.005, force=0.2, u_max=1000.0),
        result_file=options.output / "steps.jsonl",
        progress=tell,
    )
    result.to_json(options.output / "result.json")
    draw(result, options.output / "learning-curve.png")
    sys.stdout.write(result.summary())
    say(f"curves: {options.output / 'learning-curve.png'}, figures: {options.output / 'result.json'}")
    return result


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Replay known labels under several strategies.")
    parser.add_argument("labels", type=Path, help="file of labelled structures (extxyz, ASE database, …)")
    parser.add_argument("--output", type=Path, default=Path("nbmotaw-replay"), help="folder for results")
    parser.add_argument("--strategies", nargs="+", default=["default", "random"], choices=[s.value for s in Strategy])
    parser.add_argument("--initial", type=int, default=20, help="labels to begin from")
    parser.add_argument("--batch", type=int, default=25, help="labels per step")
    parser.add_argument("--budget", type=int, default=170, help="labels in the end")
    parser.add_argument("--seeds", type=int, default=3, help="curves per strategy")
    parser.add_argument("--max-pool", type=int, default=600, help="structures to choose from, at most")
    parser.add_argument("--max-test", type=int, default=150, help="structures to test on, at most")
    parser.add_argument("--channels", type=int, default=16, help="channels per committee member")
    parser.add_argument("--steps", type=int, default=1200, help="training steps per round")
    parser.add_argument("--test-suffix", default="_Test", help="config_type of the test set ends in this")
    return parser.parse_args(arguments)


def tell(progress: BacktestProgress) -> None:
    """Say on stderr what was reached."""
    point = progress.point
    force = "" if point.force_mae is None else f", {1000 * point.force_mae:6.1f} meV/Å"
    where = f"[{progress.curve + 1}/{progress.n_curves}] {progress.strategy:8s} seed {progress.seed}"
    errors = f"{1000 * point.energy_mae:6.1f} meV/atom{force}"
    say(f"{where}: {point.n_labels:4d} labels, {errors}  ({point.cpu_seconds:.0f} s)")


def say(line: str) -> None:
    """Write to stderr: stdout is for results."""
    sys.stderr.write(line + "\n")


def draw(result: BacktestResult, path: Path) -> None:
    """Draw test errors against labels, mean and spread over the seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = [("energy", "energy MAE, meV/atom"), ("force", "force MAE, meV/Å")]
    kinds = [(kind, label) for kind, label in kinds if result.mean_curve(result.strategies[0], kind)]
    figure = Figure(figsize=(5 * len(kinds), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (kind, label) in enumerate(kinds, start=1):
        axes = figure.add_subplot(1, len(kinds), number)
        for colour, strategy in zip(
            ("#0a6ebd", "#777777", "#d1495b", "#2e933c", "#edae49", "#6a4c93"), result.strategies, strict=False
        ):
            rows = result.mean_curve(strategy, kind)
            n, mean = [r[0] for r in rows], [1000 * r[1] for r in rows]
            low, high = [1000 * (r[1] - r[2]) for r in rows], [1000 * (r[1] + r[2]) for r in rows]
            axes.plot(n, mean, color=colour, marker="o", markersize=3, label=strategy)
            axes.fill_between(n, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_yscale("log")
        axes.set_xlabel("labels")
        axes.set_ylabel(label)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
