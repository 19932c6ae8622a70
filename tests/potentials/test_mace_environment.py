"""The `mace` extra in an environment of its own, in which the tests of test_mace.py run."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with mace-torch; the rest, torch above all, is taken from this environment."""
    folder = tmp_path_factory.mktemp("mace") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    interpreter = folder / "bin" / "python"
    find = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = subprocess.run([str(interpreter), "-c", find], capture_output=True, text=True, check=True).stdout.strip()
    # stands after the environment's own packages: those that mace-torch brings win
    (Path(site) / "here.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n{ROOT}\n")
    constraints = folder / "constraints.txt"
    constraints.write_text(f"torch=={torch.__version__.partition('+')[0]}\n")
    done = subprocess.run(
        [str(interpreter), "-m", "pip", "install", "--quiet", "-c", str(constraints), "mace-torch>=0.3.14"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"mace-torch cannot be installed here: {done.stderr.strip().splitlines()[-1][:300]}")
    return interpreter


@pytest.mark.integration
def test_mace_committees_in_their_own_environment(python: Path) -> None:
    where = "import mace, e3nn, alflow; print(e3nn.__version__, e3nn.__file__, alflow.__file__)"
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    said = subprocess.run([str(python), "-c", where], capture_output=True, text=True, check=True, env=quiet).stdout
    assert said.startswith("0.4.4"), f"mace-torch no longer holds e3nn at 0.4.4: {said}"
    done = subprocess.run(
        [str(python), "-m", "pytest", "--noconftest", "-q", "-p", "no:cacheprovider", "tests/potentials/test_mace.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
