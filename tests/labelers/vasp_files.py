"""What tests of the labeler `vasp` need: PAW datasets that hold no physics, and a worker's file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from alflow.labelers import WorkerConfig

STAND_IN = Path(__file__).with_name("vasp_stand_in.py")

DATASETS: dict[str, tuple[str, str, float, float, str]] = {
    "Cu": ("Cu", "PAW_PBE Cu 22Jun2005", 11.0, 295.446, "PE"),
    "Ni_pv": ("Ni", "PAW_PBE Ni_pv 06Sep2000", 16.0, 367.986, "PE"),
    "O": ("O", "PAW_PBE O 08Apr2002", 6.0, 400.0, "PE"),
    "O_h": ("O", "PAW_PBE O_h 06Feb2004", 6.0, 700.0, "PE"),
    "H": ("H", "PAW_PBE H 15Jun2001", 1.0, 250.0, "PE"),
    "Si": ("Si", "PAW_PBE Si 05Jan2001", 4.0, 245.345, "PE"),
    "Au_lda": ("Au", "PAW Au 04Oct2007", 11.0, 229.943, "CA"),
}


def dataset(name: str) -> str:
    """The lines of a PAW dataset that are read; the tables of VASP's own files are proprietary."""
    element, title, valence, enmax, exchange = DATASETS[name]
    return (
        f"  {title}\n   {valence:.16f}\n parameters from PSCTR are:\n"
        f"   VRHFIN ={element}: nothing\n   LEXCH  = {exchange}\n   TITEL  = {title}\n"
        f"   POMASS =   1.000; ZVAL   = {valence:8.3f}    mass and valenz\n"
        f"   ENMAX  = {enmax:8.3f}; ENMIN  = {0.75 * enmax:8.3f} eV\n END of PSCTR-controll parameters\n"
        " tables\n End of Dataset\n"
    )


def write_datasets(folder: Path) -> Path:
    for name in DATASETS:
        (folder / name).mkdir(parents=True)
        (folder / name / "POTCAR").write_text(dataset(name))
    return folder


def worker(potentials: Path, /, *mode: str, **program: Any) -> WorkerConfig:
    """A worker's file whose VASP is the stand-in."""
    entry = {
        "command": [sys.executable, str(STAND_IN), *(mode or ("ok",))],
        "version": "6.4.2",
        "potentials": str(potentials),
        "free_disk_gb": 0.0,
    }
    return WorkerConfig.model_validate({"programs": {"vasp": {**entry, **program}}})
