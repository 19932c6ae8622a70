"""Table and plot of the runs of the comparison: python benchmarks/potential/peers/report.py OUT."""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

Result = dict[str, Any]
Curve = tuple[str, str]  # peer and setting
COLOURS = {"MACE": ("#d98032", "#8f4a0c"), "NequIP": ("#5aa469", "#1f6b35"), "alflow": ("#3b6fd4", "#7b4fc9")}
ERRORS = {"energy_mae": "energy error, meV/atom", "force_mae": "force error, meV/Å"}
COLUMNS = {
    "element": "",
    "potential": "",
    "seconds": "budget, CPU-s",
    "seeds": "seeds",
    "energy_mae": "energy, meV/atom",
    "force_mae": "force, meV/Å",
    "epochs": "epochs",
    "structures_per_cpu_s": "trained, structures per CPU-s",
    "atoms_per_cpu_s": "predicted, atoms per CPU-s",
    "peak_mib": "largest memory, MiB",
    "sgemm": "matrix product, GFLOP/s",
    "load": "load",
}


def read_runs(runs: Path) -> list[Result]:
    """All results, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(runs.glob("*.json"))]


def label(result: Result) -> str:
    """Peer, setting and shape in few words."""
    if result["peer"] == "alflow":
        return f"alflow, {result['setting'].replace('x', ' × ')} channels"
    return f"{result['peer']}, {result['setting']} ({result['shape']})"


def rows(results: list[Result]) -> list[dict[str, str]]:
    """One row per element, potential and budget; mean, and range over several seeds."""
    groups: dict[tuple[str, str, float], list[Result]] = defaultdict(list)
    for r in results:
        groups[r["element"], label(r), r["seconds"]].append(r)
    found = []
    for (element, name, seconds), members in sorted(groups.items()):
        values = {
            key: [r["curve"][-1][key] if key in r["curve"][-1] else r[key] for r in members]
            for key in [*ERRORS, "epochs", "structures_per_cpu_s", "atoms_per_cpu_s", "peak_mib"]
        }
        values |= {key: [x for r in members for x in r[key]] for key in ("sgemm", "load")}
        shown = {key: spread(x, ranged=key in ("sgemm", "load") or len(members) > 1) for key, x in values.items()}
        found.append(
            {"element": element, "potential": name, "seconds": f"{seconds:g}", "seeds": str(len(members))} | shown
        )
    return found


def spread(values: list[float], *, ranged: bool) -> str:
    """Mean, and range."""
    mean = digits(float(np.mean(values)))
    return f"{mean} ({digits(min(values))}–{digits(max(values))})" if ranged and min(values) < max(values) else mean


def digits(x: float) -> str:
    """Three significant digits, no exponent."""
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}"


def write_report(runs: Path, out: Path) -> None:
    """Write results.md, results.csv and errors.png."""
    results = read_runs(runs)
    if not results:
        return
    table = rows(results)
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row[key] for key in COLUMNS) + " |" for row in table]
    used = sorted({f"{r['peer']} {r['version']}, torch {r['torch']}" for r in results})
    lines += ["", f"{'; '.join(used)}; {', '.join(sorted({r['processor'] for r in results}))}."]
    (out / "results.md").write_text("\n".join(lines) + "\n")
    with (out / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        keys = [
            "element",
            "peer",
            "setting",
            "shape",
            "seed",
            "seconds",
            *results[0]["curve"][0],
            "structures_per_cpu_s",
        ]
        keys = list(dict.fromkeys([*keys, "steps", "atoms_per_cpu_s", "peak_mib"]))
        writer.writerow(keys)
        for r in results:
            for point in r["curve"]:
                writer.writerow([(r | point).get(key, "") for key in keys])
    draw(results, out / "errors.png")
    print("\n".join(lines))


def draw(results: list[Result], path: Path) -> None:
    """Errors against CPU time, one row per element: markers end a run, thin lines are looks along the longest one."""
    elements = list(dict.fromkeys(r["element"] for r in results))
    figure, grid = plt.subplots(
        len(elements), 2, figsize=(10.5, 0.9 + 3.8 * len(elements)), layout="constrained", squeeze=False
    )
    for element, axes in zip(elements, grid, strict=True):
        curves: dict[Curve, list[Result]] = defaultdict(list)
        for r in results:
            if r["element"] == element:
                curves[r["peer"], r["setting"]].append(r)
        for (kind, title), axis in zip(ERRORS.items(), axes, strict=True):
            for (peer, setting), members in curves.items():
                one_curve(axis, kind, peer, setting, members)
            axis.set(xscale="log", yscale="log", xlabel="CPU time of training, s", ylabel=title, title=element)
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_locator(LogLocator(subs=(1, 2, 5)))
                side.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
                side.set_minor_locator(NullLocator())
            axis.grid(visible=True, alpha=0.3, linewidth=0.6)
    legend = {name: line for axis in grid.flat for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=2, frameon=False, handlelength=3)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def one_curve(axis: Axes, kind: str, peer: str, setting: str, members: list[Result]) -> None:
    """Mean over seeds at the end of every budget with its range, and the way along the longest run."""
    colour = COLOURS[peer][setting in ("recommended", "4x32")]
    line = "--" if setting == "recommended" else "-"
    ends: dict[float, list[Result]] = defaultdict(list)
    for r in members:
        ends[r["seconds"]].append(r)
    x = [float(np.mean([r["curve"][-1]["cpu"] for r in ends[s]])) for s in sorted(ends)]
    errors = [[r["curve"][-1][kind] for r in ends[s]] for s in sorted(ends)]
    mean = [float(np.mean(e)) for e in errors]
    longest = ends[max(ends)]
    along = [np.array([[p["cpu"], p[kind]] for p in r["curve"]]) for r in longest]
    if len(along[0]) > 1:
        way = np.mean([a for a in along if len(a) == len(along[0])], axis=0)
        dots = line if setting == "recommended" else ":"  # a way whose schedule was made for the whole budget
        axis.plot(way[:, 0], way[:, 1], color=colour, linestyle=dots, linewidth=1.4)
    n = len(longest)
    name = f"{label(members[0])}{f', {n} seeds' if n > 1 else ''}"
    axis.plot(x, mean, color=colour, linestyle=line, marker="o", markersize=5, linewidth=1.8, label=name)
    axis.fill_between(x, [min(e) for e in errors], [max(e) for e in errors], color=colour, alpha=0.2, linewidth=0)


if __name__ == "__main__":
    write_report(Path(sys.argv[1]) / "runs", Path(sys.argv[1]))
