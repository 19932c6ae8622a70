"""Takes VASP's place in the tests: reads its inputs, computes Lennard-Jones, writes its outputs; or does it badly.

Called as ``python vasp_stand_in.py MODE …`` in a folder with INCAR, KPOINTS, POSCAR and POTCAR. VASP's habits that
matter: positions are moved into the cell, the stress is compressive where positive and in kbar, xx yy zz xy yz zx.
"""

from __future__ import annotations

import gzip
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np

KBAR = 1e8 / 1.602176634e11
SIGMA, EPSILON, CUTOFF = 2.3, 0.4, 7.0


def incar() -> dict[str, list[str]]:
    text = Path("INCAR").read_text().replace("\\\n", " ")
    return {tag.strip(): value.split() for tag, _, value in (line.partition("=") for line in text.splitlines())}


def repeated(words: list[str]) -> list[float]:
    values: list[float] = []
    for word in words:
        count, _, value = word.rpartition("*")
        values += [float(value)] * int(count or 1)
    return values


def vectors(name: str, rows: np.ndarray) -> str:
    lines = "\n".join("    <v>" + "".join(f"{x:17.8f}" for x in row) + " </v>" for row in rows)
    return f'  <varray name="{name}" >\n{lines}\n  </varray>\n'


def row(left: np.ndarray, right: np.ndarray) -> str:
    return "".join(f"{x:14.9f}" for x in (*left, *right)) + "\n"


def dataset(title: str, valence: float) -> str:
    return f"   TITEL  = {title}\n   POMASS =    1.000; ZVAL   = {valence:8.3f}    mass and valenz\n"


def structure(cell: np.ndarray, fractional: np.ndarray) -> str:
    crystal = f"   <crystal>\n{vectors('basis', cell)}   </crystal>\n"
    return f"  <structure>\n{crystal}{vectors('positions', fractional)}  </structure>\n"


def energy(value: float, entropy: float) -> str:
    values = {"e_fr_energy": value, "e_wo_entrp": value + entropy, "e_0_energy": value + entropy / 2}
    lines = "".join(f'    <i name="{name}">{number:17.8f} </i>\n' for name, number in values.items())
    return f"   <energy>\n{lines}   </energy>\n"


def poscar() -> tuple[np.ndarray, list[str], list[int], np.ndarray]:
    """Cell, species, their numbers, fractional positions within the cell."""
    lines = Path("POSCAR").read_text().splitlines()
    assert lines[7] == "Direct"
    cell = float(lines[1]) * np.array([line.split() for line in lines[2:5]], dtype=float)
    counts = [int(n) for n in lines[6].split()]
    fractional = np.array([line.split()[:3] for line in lines[8 : 8 + sum(counts)]], dtype=float)
    return cell, lines[5].split(), counts, fractional % 1.0


def lennard_jones(cell: np.ndarray, positions: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy, forces, stress (positive where the cell wants to shrink) of a shifted potential, periodic everywhere."""
    reach = np.ceil(CUTOFF * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int) + 1
    shifts = np.array(list(np.ndindex(*(2 * reach + 1)))) - reach
    away = positions[None, :, None] - positions[:, None, None] + (shifts @ cell)[None, None]
    distance = np.linalg.norm(away, axis=-1)
    near = (distance > 1e-6) & (distance < CUTOFF)
    r = np.where(near, distance, 1.0)
    six = (SIGMA / r) ** 6
    at_cutoff = (SIGMA / CUTOFF) ** 6
    energies = np.where(near, 4 * EPSILON * (six**2 - six - at_cutoff**2 + at_cutoff), 0.0)
    slope = np.where(near, -24 * EPSILON * (2 * six**2 - six) / r**2, 0.0)[..., None] * away
    virial = 0.5 * np.einsum("ijsa,ijsb->ab", slope, away)
    return 0.5 * float(energies.sum()), slope.sum(axis=(1, 2)), virial / abs(np.linalg.det(cell))


def compute(*, version: str = "6.4.2", steps: int = 9, reached: bool = True, entropy: float = 0.0) -> tuple[str, str]:
    """vasprun.xml and OUTCAR."""
    tags = incar()
    cell, species, counts, fractional = poscar()
    if np.linalg.det(cell) < 0:
        sys.exit("ERROR: the triple product of the basis vectors is negative, exchange two basis vectors")
    total, forces, stress = lennard_jones(cell, fractional @ cell)
    stress = -stress / KBAR
    potcar = Path("POTCAR").read_text()
    titles = re.findall(r"TITEL\s*=\s*(.*)", potcar)
    valences = [float(z) for z in re.findall(r"ZVAL\s*=\s*([\d.]+)", potcar)]
    symbols = [s for s, n in zip(species, counts, strict=True) for _ in range(n)]
    assert len(titles) == len(species), "number of potentials on File POTCAR incompatible with number of species"
    neutral = sum(n * z for n, z in zip(counts, valences, strict=True))
    electrons = float(tags.get("NELECT", [str(neutral)])[0])
    limit, spin = int(tags["NELM"][0]), int(tags["ISPIN"][0])
    steps = steps if reached else limit
    moments = 0.9 * np.array(repeated(tags["MAGMOM"])) if spin == 2 else np.zeros(0)
    mesh = Path("KPOINTS").read_text().splitlines()[3]
    rows = "".join(
        f"<rc><c>{n:4d}</c><c>{s:2s}</c><c>  1.0</c><c>{z:12.8f}</c><c> {t} </c></rc>\n"
        for n, s, z, t in zip(counts, species, valences, titles, strict=True)
    )
    ions = "".join(f"<rc><c>{s:2s}</c><c>{species.index(s) + 1:4d}</c></rc>\n" for s in symbols)
    changes = [float(tags["EDIFF"][0]) * (0.5 if reached else 50.0)] + [0.1] * (steps - 1)
    scf = [total + sum(changes[:k]) for k in reversed(range(steps))]
    xml = f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator>
  <i name="program" type="string">vasp </i>
  <i name="version" type="string">{version}  </i>
 </generator>
 <incar>
  <i type="string" name="ALGO"> {tags["ALGO"][0]}</i>
 </incar>
 <kpoints>
  <generation param="Gamma">
   <v type="int" name="divisions"> {mesh} </v>
   <v name="usershift"> 0.0 0.0 0.0 </v>
  </generation>
  <varray name="kpointlist" >
   <v> 0.0 0.0 0.0 </v>
  </varray>
  <varray name="weights" >
   <v> 1.0 </v>
  </varray>
 </kpoints>
 <parameters>
  <i type="int" name="NELM">{limit:6d}</i>
  <i name="ENMAX">{float(tags["ENCUT"][0]):16.8f}</i>
  <i name="EDIFF">{float(tags["EDIFF"][0]):16.8f}</i>
  <i name="NELECT">{electrons:16.8f}</i>
  <i type="int" name="ISMEAR">{int(tags["ISMEAR"][0]):6d}</i>
  <i name="SIGMA">{float(tags["SIGMA"][0]):16.8f}</i>
  <i type="int" name="ISPIN">{spin:6d}</i>
  <i type="int" name="NSW">{int(tags["NSW"][0]):6d}</i>
  <i type="int" name="IBRION">    -1</i>
  <i type="int" name="ICHARG">     2</i>
 </parameters>
 <atominfo>
  <atoms>{len(symbols):8d} </atoms>
  <types>{len(species):8d} </types>
  <array name="atoms" >
   <dimension dim="1">ion</dimension>
   <field type="string">element</field>
   <field type="int">atomtype</field>
   <set>
{ions}   </set>
  </array>
  <array name="atomtypes" >
   <dimension dim="1">type</dimension>
   <field type="int">atomspertype</field>
   <field type="string">element</field>
   <field>mass</field>
   <field>valence</field>
   <field type="string">pseudopotential</field>
   <set>
{rows}   </set>
  </array>
 </atominfo>
 {structure(cell, fractional).replace("<structure>", '<structure name="initialpos" >')}
 <calculation>
{"".join(f"  <scstep>{energy(e, entropy)}  </scstep>" + chr(10) for e in scf)}
{structure(cell, fractional)}{vectors("forces", forces)}{vectors("stress", stress)}{energy(total, entropy)}
 </calculation>
 {structure(cell, fractional).replace("<structure>", '<structure name="finalpos" >')}
</modeling>
"""
    word = (
        "because EDIFF is reached" if reached or not version.startswith("6") else "EDIFF was not reached (unconverged)"
    )
    s = stress
    table = "".join(f"{k:5d}   0.0 0.0 {m:8.3f} {m:8.3f}\n" for k, m in enumerate(moments, 1))
    magnetic = f"\n magnetization (x)\n\n# of ion  s p d tot\n-----------\n{table}-----------\n" if spin == 2 else ""
    moment = f"{moments.sum():12.7f}" if spin == 2 else ""
    outcar = f""" vasp.{version} 20Jul23 (build Jan 01 2024 00:00:00) complex
{2 * "".join(f" POTCAR:    {t}{chr(10)}" for t in titles)}
{"".join(map(dataset, titles, valences))}
   ions per type = {" ".join(str(n) for n in counts)}
   ISPIN  = {spin:6d}    spin polarized calculation?
   NELM   = {limit:6d};   NELMIN=  4; NELMDL= -5     # of ELM steps
   EDIFF  = {float(tags["EDIFF"][0]):.1E}   stopping-criterion for ELM
   ZVAL   = {"".join(f"{z:7.2f}" for z in valences)}
   NELECT = {electrons:12.4f}    total number of electrons
"""
    for k in range(1, steps + 1):
        outcar += f"{39 * '-'} Iteration      1({k:4d})  {39 * '-'}\n"
        outcar += f" number of electron {electrons:15.7f} magnetization {moment}\n"
    outcar += f"""
------------------------ aborting loop {word} ----------------------------------------
{magnetic}
  in kB {s[0, 0]:11.5f} {s[1, 1]:11.5f} {s[2, 2]:11.5f} {s[0, 1]:11.5f} {s[1, 2]:11.5f} {s[2, 0]:11.5f}

      direct lattice vectors                 reciprocal lattice vectors
{"".join(row(v, w) for v, w in zip(cell, np.linalg.inv(cell).T, strict=True))}
 POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
{"".join(row(x, f) for x, f in zip(fractional @ cell, forces, strict=True))}
 -----------------------------------------------------------------------------------
  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)
  ---------------------------------------------------
  free  energy   TOTEN  = {total:18.8f} eV

  energy  without entropy= {total + entropy:16.8f}  energy(sigma->0) = {total + entropy / 2:16.8f}

 General timing and accounting informations for this job:
"""
    return xml, outcar


def main(mode: str, *arguments: str) -> None:
    if mode == "slow":
        time.sleep(60)
    if mode == "prints":
        print(arguments[0].replace("\\n", "\n"))
        sys.exit(int(arguments[1]))
    if mode == "replay":
        folder = Path(arguments[0])
        Path("OUTCAR").write_bytes((folder / "OUTCAR").read_bytes())
        Path("vasprun.xml").write_bytes(gzip.decompress((folder / "vasprun.xml.gz").read_bytes())[: int(arguments[1])])
        return
    algorithm = incar()["ALGO"][0]
    options: dict[str, dict[str, object]] = {
        "old": {"version": "5.4.4"},
        "other-version": {"version": "6.3.0"},
        "patched": {"version": "6.4.3"},
        "unconverged": {"reached": False},
        "unconverged-5": {"reached": False, "version": "5.4.4"},
        "patient": {"reached": algorithm != "Fast"},
        "hot": {"entropy": 0.1},
    }
    if mode == "fails-fast" and algorithm == "Fast":
        print(" Error EDDDAV: Call to ZHEGV failed. Returncode =   7 2  8")
        return
    if mode == "few-bands" and "NBANDS" not in incar():
        print(" WARNING: Your highest band is occupied at some k-points!")
    xml, outcar = compute(**options.get(mode, {}))  # type: ignore[arg-type]
    if mode == "truncated":
        xml = xml[: len(xml) // 2]
    if mode == "outcar-truncated":
        outcar = outcar[: outcar.index("General timing")]
    if mode == "relaxes":
        first, rest = xml.index(" <calculation>"), xml.index("</calculation>") + 15
        xml = xml[:rest] + xml[first:rest] + xml[rest:]
        start, end = outcar.index("------"), outcar.index(" General timing")
        outcar = outcar[:end] + outcar[start:end] + outcar[end:]
    if mode == "two-runs":
        outcar = re.sub(r"(TOTEN\s+=\s+)\S+", r"\g<1>-1.00000000", outcar)
    Path("vasprun.xml").write_text(xml)
    if mode != "no-outcar":
        Path("OUTCAR").write_text(outcar)
    if mode == "dies":
        Path("OUTCAR").write_text(outcar[: len(outcar) // 2])
        Path("vasprun.xml").write_text(xml[: len(xml) // 2])
        print("forrtl: severe (174): SIGSEGV, segmentation fault occurred", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGSEGV)
    if mode == "exit-late":
        print(" WARNING: Sub-Space-Matrix is not hermitian in DAV    4  -7.45E-003")
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
