"""alflow's committee under its own training, whose schedule ends with the budget: every budget is a run.

Run by compare.py.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from common import Run, atoms_per_cpu_s, errors, peak_mib, work

from alflow.potentials import CommitteeSpec, TrainingSpec, kernel_state, train_committee


def job(run: Run) -> dict[str, Any]:
    members, channels = map(int, run.setting.split("x"))
    structures, test = run.structures("training"), run.structures("test")
    spec, training = CommitteeSpec(n_members=members, channels=channels), TrainingSpec(cpu_seconds=run.seconds)
    train_committee(structures[:2], spec, TrainingSpec(steps=1))  # compiles the kernels, once per machine
    started = time.monotonic()
    committee = train_committee(structures, spec, training, seed=run.seed)
    wall, peak, report = time.monotonic() - started, peak_mib(), committee.report
    assert report is not None
    found = committee.predict(test)
    mean = list(zip(np.asarray(found.energy_mean).tolist(), found.force_mean, strict=True))
    learned = len(structures) - len(report.held_out)
    return {
        "curve": [{"cpu": report.cpu_seconds, "epochs": report.epochs, **errors(test, mean)}],
        "structures_per_cpu_s": report.epochs * learned / report.cpu_seconds,
        "peak_mib": peak,
        "wall": wall,
        "parameters": committee.core.weights.shape[1],
        "atoms_per_cpu_s": atoms_per_cpu_s(run.element, committee.predict),
        "members": members,
        "shape": f"{channels} channels, {kernel_state(spec)[1]}",
        "batch": training.batch_size,
    }


if __name__ == "__main__":
    work("alflow", "alflow", __doc__, job)
