"""MACE, NequIP and alflow on the same data for the same CPU time on one core: from nothing to table and plots.

python benchmarks/potential/peers/compare.py --data FOLDER --out OUT [--elements Si,Mo,Li] [--seconds 300] [--seeds 0] \
    [--budgets 20,60,150] [--only alflow,mace,nequip] [--settings small,recommended,4x16,4x32] \
    [--environments FOLDER] [--torch-index URL]

FOLDER holds ELEMENT_training.xyz.gz and ELEMENT_test.xyz.gz (see bench_accuracy.py). Every peer gets an environment of
its own, for their requirements exclude each other. One process per run, one thread, one run at a time. What is done is
kept in OUT/runs, so that the same command goes on where it stopped and more seeds or budgets add to it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from report import write_report

HERE = Path(__file__).parent
REQUIRES = {"mace": "mace-torch==0.3.16", "nequip": "nequip==0.19.1"}
SETTINGS = {"mace": ("small", "recommended"), "nequip": ("small", "recommended"), "alflow": ("4x16", "4x32")}
# One thread, and memory that is freed stays with the process: alflow asks for the latter itself.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of one peer."""

    peer: str
    setting: str
    element: str
    seed: int
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.element}-{self.peer}-{self.setting}-{self.seconds:g}-{self.seed}"


def interpreter(peer: str, folder: Path, torch_index: str | None) -> Path:
    """Python of the environment in which `peer` lives, installed if need be."""
    if peer == "alflow":
        return Path(sys.executable)
    python, done = folder / peer / "bin" / "python", folder / peer / "installed.txt"
    if not done.exists():
        print(f"installing {REQUIRES[peer]} into {folder / peer}", file=sys.stderr, flush=True)
        torch = f"torch=={version('torch').split('+')[0]}"
        pip = [str(python), "-m", "pip"]
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / peer)], check=True)
        index = ["--index-url", torch_index] if torch_index else []
        subprocess.run([*pip, "install", "--quiet", *index, torch], check=True)
        subprocess.run([*pip, "install", "--quiet", torch, REQUIRES[peer]], check=True)
        done.write_text(subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout)
    return python


def jobs(options: argparse.Namespace) -> list[Job]:
    """What is to be run: first seeds first. Where the schedule ends with the budget, every budget is a run."""
    shorter = [float(x) for x in options.budgets.split(",") if x and float(x) < options.seconds]
    return [
        Job(peer=peer, setting=setting, element=element, seed=int(seed), seconds=seconds)
        for seed in options.seeds.split(",")
        for element in options.elements.split(",")
        for seconds in [options.seconds, *reversed(shorter)]
        for peer in options.only.split(",")
        for setting in SETTINGS[peer]
        if setting in options.settings.split(",") and (setting != "recommended" or seconds == options.seconds)
    ]


def run(job: Job, python: Path, data: Path, runs: Path) -> bool:
    """Run one job unless it was done; False where it failed, with its output kept beside the results."""
    result, log = runs / f"{job.name}.json", runs / f"{job.name}.log"
    if result.exists():
        return True
    print(f"{job.name}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    command = [str(python), str(HERE / f"run_{job.peer}.py"), "--data", str(data), "--out", str(result)]
    command += [
        "--setting",
        job.setting,
        "--element",
        job.element,
        "--seed",
        str(job.seed),
        "--seconds",
        f"{job.seconds:g}",
    ]
    with log.open("w") as output:
        ended = subprocess.run(
            command, env=os.environ | ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if ended.returncode:
        print(f"{job.name} failed; its output is in {log}", file=sys.stderr, flush=True)
    return ended.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--elements", default="Si")
    parser.add_argument("--seconds", type=float, default=300.0, help="CPU-seconds of the longest runs")
    parser.add_argument("--budgets", default="20,60,150", help="shorter budgets, not for recommended settings")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--only", default="mace,nequip,alflow")
    parser.add_argument("--settings", default="small,recommended,4x16,4x32")
    parser.add_argument("--environments", type=Path, help="where the peers are installed; default: OUT/environments")
    parser.add_argument("--torch-index", help="index of torch wheels, such as https://download.pytorch.org/whl/cpu")
    options = parser.parse_args()
    runs = options.out / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    wanted, environments = jobs(options), options.environments or options.out / "environments"
    pythons = {p: interpreter(p, environments.absolute(), options.torch_index) for p in options.only.split(",")}
    failed = [job.name for job in wanted if not run(job, pythons[job.peer], options.data, runs)]
    write_report(runs, options.out)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
