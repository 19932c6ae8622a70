"""Runs GPAW on one structure; a copy of this file lies beside every calculation and needs no alflow.

It needs a Python with GPAW, and that installation's ASE. ``python gpaw_run.py job.json result.json`` reads a structure
and GPAW's own keywords, lets GPAW write ``gpaw.txt``, and writes the result, whole or not at all: the numbers, or the
exception that GPAW raised. ``python gpaw_run.py describe '{"elements": ["Si"], "setups": {}, "xc": "PBE"}'`` prints
versions and the PAW datasets that GPAW would read. Units are those of ASE: eV, Å, µB.
"""

import gzip
import hashlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

TEXT = "gpaw.txt"


def main(arguments: list[str]) -> int:
    """Describe the installation, or compute one job; 0 where that succeeded."""
    if arguments[:1] == ["describe"]:  # no option: `gpaw python` would take it for its own
        answer = attempt(describe, json.loads(arguments[1]))
        if is_first_process():
            print("\n" + json.dumps(answer))
        return int("failure" in answer)
    job, result = map(Path, arguments)
    answer = attempt(compute, json.loads(job.read_text(encoding="utf-8")))
    if is_first_process():
        write(result, answer)
    return int("failure" in answer)


def attempt(step: Any, content: dict[str, Any]) -> dict[str, Any]:
    """Return what a step gives, or the exception that it raised."""
    try:
        answer: dict[str, Any] = step(content)
    except Exception as error:  # noqa: BLE001  whatever GPAW raises is judged by who reads it
        traceback.print_exc()
        names = [kind.__name__ for kind in type(error).__mro__]
        failure = {"types": names, "message": str(error), "errno": getattr(error, "errno", None)}
        return {"failure": failure}
    return answer


def describe(content: dict[str, Any]) -> dict[str, Any]:
    """Return versions and, by element, the dataset that GPAW would read; null where it finds none."""
    from gpaw.setup_data import SetupData, search_for_file
    from gpaw.xc import XC

    functional = XC(content["xc"]).get_setup_name()
    datasets: dict[str, Any] = {}
    for element in content["elements"]:
        kind = content["setups"].get(element, "paw")
        name = SetupData(element, functional, name=kind, readxml=False).stdfilename
        try:
            datasets[element] = dataset(search_for_file(name)[0])
        except FileNotFoundError:
            datasets[element] = {"file": name, "sha256": None}
    return {**versions(), "datasets": datasets}


def compute(job: dict[str, Any]) -> dict[str, Any]:
    """Return everything that GPAW says about one structure."""
    from ase import Atoms
    from gpaw import GPAW

    atoms = Atoms(job["numbers"], positions=job["positions"], cell=job["cell"], pbc=job["pbc"])
    if job["moments"] is not None:
        atoms.set_initial_magnetic_moments(job["moments"])
    calculator = GPAW(txt=TEXT, **job["parameters"])
    atoms.calc = calculator
    answer: dict[str, Any] = {
        "energy": float(atoms.get_potential_energy()),
        "free_energy": float(atoms.get_potential_energy(force_consistent=True)),
        "forces": atoms.get_forces().tolist(),
        **stress(job, atoms),
    }
    if job["moments"] is not None:
        answer["moments"] = atoms.get_magnetic_moments().tolist()
        answer["total_moment"] = float(atoms.get_magnetic_moment())
    computed, dft = calculator.atoms, calculator.dft
    elements = dict.fromkeys(computed.get_chemical_symbols())
    answer |= {
        "numbers": computed.numbers.tolist(),
        "cell": computed.cell.array.tolist(),
        "pbc": computed.pbc.tolist(),
        "positions": computed.positions.tolist(),
        "iterations": int(dft.scf_loop.niter),
        "bands": int(dft.ibzwfs.nbands),
        "irreducible_kpoints": len(dft.ibzwfs.ibz),
        "grid": [int(n) for n in dft.density.nt_sR.desc.size],
        "datasets": {element: used_dataset(dft.setups, element) for element in elements},
    }
    return {**versions(), **answer}


def stress(job: dict[str, Any], atoms: Any) -> dict[str, Any]:
    """Return the stress of a crystal and GPAW's estimate of its Pulay part, which has to be small.

    The stress belongs to a fixed number of plane waves, while energies are compared at a fixed cutoff c. The difference
    is 2c/3V · dE/dc on the diagonal (Francis and Payne, J. Phys.: Condens. Matter 2, 4395 (1990)); GPAW estimates dE/dc
    from the kinetic energy of the atoms.
    """
    if not job["stress"]:
        return {"stress": None, "pulay_estimate": None}
    from ase.units import Hartree

    cutoff = job["parameters"]["mode"]["ecut"]
    slope = float(atoms.calc.dft.setups.estimate_dedecut(cutoff / Hartree))
    estimate = 2 * cutoff * slope / (3 * atoms.get_volume())
    return {"stress": atoms.get_stress(voigt=False).tolist(), "pulay_estimate": estimate}


def used_dataset(setups: Any, element: str) -> dict[str, Any]:
    """The file behind the setups of an element."""
    return next(dataset(setup.filename) for setup in setups if setup.symbol == element)


def dataset(path: str) -> dict[str, Any]:
    """Name and SHA-256 of a dataset's content, which is the same packed and unpacked."""
    content = Path(path).read_bytes()
    if path.endswith(".gz"):
        content = gzip.decompress(content)
    return {"file": Path(path).name.removesuffix(".gz"), "sha256": hashlib.sha256(content).hexdigest()}


def versions() -> dict[str, str]:
    """What computes."""
    import ase
    import gpaw

    return {"gpaw": gpaw.__version__, "ase": ase.__version__, "libxc": gpaw.get_libraries()["libxc"]}


def is_first_process() -> bool:
    """Whether this process speaks for all that an MPI launcher started."""
    if "gpaw" not in sys.modules:
        return True
    from gpaw.mpi import world

    return bool(world.rank == 0)


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
