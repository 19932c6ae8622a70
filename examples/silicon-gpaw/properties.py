"""Equation of state and elastic constants of a campaign's committee, beside the theory that it learnt from.

    python properties.py campaign.yaml

What the theory says is asked through the campaign's own labeler and kept in its ledger under a campaign of its own,
``NAME-reference``: the committee never trains on it, and the same command pays for nothing a second time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from mechanics import VOLUMES, at_rest, birch_murnaghan, describe, scan

from alflow.errors import AlflowError, UserError
from alflow.ledger import CandidateState, NewCandidate, Stream
from alflow.loop import LabelWorker, find_committee, open_campaign, open_committee
from alflow.structures import DuplicateIndex, DuplicatePolicy, Structure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from mechanics import Crystal
    from numpy.typing import NDArray

    from alflow.ledger import LabelRow
    from alflow.loop import CampaignContext
    from alflow.potentials import Committee


PRIORITY = 10.0
"""Before whatever else waits in the queue."""

# -- who answers: the theory through the ledger, one member of the committee -------------------------------------------


class LedgerCalculator(Calculator):
    """Labels of a campaign's theory: what the ledger holds is free, the rest is queued, computed and kept."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, ctx: CampaignContext) -> None:
        super().__init__()
        self.ctx = ctx
        # a campaign of its own: the committee trains on labels of its own campaign only
        self.campaign_id = ctx.ledger.campaigns.create(
            f"{ctx.name}-reference", f"what the committee of {ctx.name} is compared with", {"theory": ctx.name}, 1
        ).id
        self.used: dict[int, LabelRow] = {}
        self.paid = 0

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Fill ``results`` from a label."""
        super().calculate(atoms, properties or ["energy"], system_changes)
        found = self.label([Structure.from_atoms(self.atoms)])[0].properties
        assert found.forces is not None
        assert found.stress is not None
        self.results = {
            "energy": found.energy,
            "free_energy": found.energy,
            "forces": np.array(found.forces),
            "stress": np.asarray(found.stress)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        }

    def label(self, structures: Sequence[Structure]) -> list[LabelRow]:
        """Labels of structures, computed where the ledger has none; raises UserError where that fails."""
        ledger, theory = self.ctx.ledger, self.ctx.theory
        wanted = [
            NewCandidate(
                structure=structure,
                source="properties",
                stream=Stream.MANUAL,
                deliberate=True,
                state=CandidateState.POOLED,
                reason="asked for by properties.py",
            )
            for structure in structures
        ]
        ids = ledger.pool.add(self.campaign_id, None, wanted)
        with ledger.write():
            for row in ledger.pool.rows(ids):
                if row.state is CandidateState.POOLED:
                    ledger.pool.transition([row.id], CandidateState.SELECTED, "needed for a reference value")
                if row.state in {CandidateState.POOLED, CandidateState.SELECTED}:
                    ledger.queue.enqueue(row.structure_id, theory.id, row.id, priority=PRIORITY)
                self.paid += ledger.labels.get(row.structure_id, theory.id) is None
        worker = LabelWorker(ledger, self.ctx.worker, labelers={theory.id: self.ctx.labeler})
        while jobs := ledger.queue.open_jobs(self.campaign_id):
            worker.run(max_jobs=jobs)
            if ledger.queue.open_jobs(self.campaign_id):  # another worker has them, or they wait to be tried again
                time.sleep(self.ctx.worker.poll_seconds)
        labels = []
        for row in ledger.pool.rows(ids):
            label = ledger.labels.get(row.structure_id, theory.id)
            if label is None:
                raise UserError(f"no label of {row.formula}: {row.reason}; `alflow why {row.id}` tells more")
            self.used[label.id] = label
            labels.append(label)
        return labels


class Member(Calculator):
    """One member of a committee."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, committee: Committee, k: int) -> None:
        super().__init__()
        self.committee, self.k = committee, k

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Fill ``results`` from one member's prediction."""
        super().calculate(atoms, properties or ["energy"], system_changes)
        prediction = self.committee.predict([Structure.from_atoms(self.atoms)])
        assert prediction.stress is not None
        energy = float(prediction.energy[self.k, 0])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": prediction.forces[0][self.k],
            "stress": prediction.stress[self.k, 0][[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        }


# -- the comparison ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Theory, committee and its members on one crystal.

    Parameters
    ----------
    volumes
        of the equation of state, Å³/atom
    labels
        reference labels that were used, none of which is a label of the campaign
    near
        how many of them are redundant with one: closer than 0.015 Å and a strain of 0.002
    paid
        how many of them were computed now
    u
        the committee's largest u over the reference structures
    """

    volumes: NDArray[np.float64]
    theory: Crystal
    committee: Crystal
    members: tuple[Crystal, ...]
    labels: int
    near: int
    paid: int
    u: float

    def rows(self) -> list[tuple[str, float, float, float]]:
        """Name, theory, committee, standard deviation over the members."""
        theory, committee = self.theory.numbers(), self.committee.numbers()
        members = [member.numbers() for member in self.members]
        return [(k, theory[k], committee[k], float(np.std([m[k] for m in members], ddof=1))) for k in theory]


def compare(campaign: Path, atoms: Atoms, a: float) -> Comparison:
    """Describe a crystal by a campaign's newest committee and by its theory.

    Parameters
    ----------
    campaign
        the campaign file
    atoms
        a cubic crystal near rest, its cubic axes along x, y and z
    a
        its lattice parameter, Å

    Raises
    ------
    UserError
        if a reference structure is one of the campaign's
    """
    ctx = open_campaign(campaign, create=False)
    with ctx.ledger:
        committee = newest_committee(ctx)
        mean = describe(atoms, a, committee.calculator())
        members = tuple(describe(atoms, a, Member(committee, k)) for k in range(committee.n_members))
        say("the theory: what the ledger does not hold yet is computed now")
        reference = LedgerCalculator(ctx)
        reference.label([Structure.from_atoms(image) for image in scan(atoms)])
        theory = describe(atoms, a, reference)
        known = {label.id: label.structure for label in ctx.ledger.labels.accepted(ctx.theory.id, ctx.campaign_id)}
        both = sorted(set(reference.used) & set(known))
        if both:
            raise UserError(f"labels {both} are references and training data: choose another lattice parameter")
        index = DuplicateIndex(DuplicatePolicy.redundant())
        for key, structure in known.items():
            index.add(key, structure)
        structures = [label.structure for label in reference.used.values()]
        return Comparison(
            volumes=VOLUMES * atoms.get_volume() / len(atoms),
            theory=theory,
            committee=mean,
            members=members,
            labels=len(reference.used),
            near=sum(index.find(structure) is not None for structure in structures),
            paid=reference.paid,
            u=float(committee.predict(structures).u.max()),
        )


def newest_committee(ctx: CampaignContext) -> Committee:
    """The committee trained last, with its calibration.

    Raises
    ------
    NotFoundError
        before the first training
    """
    row = find_committee(ctx.ledger, ctx.campaign_id)
    say(f"the committee of round {row.round_index}, trained on {row.metrics['n_labels']} labels")
    return open_committee(ctx.ledger, row)


# -- what is written ---------------------------------------------------------------------------------------------------

NAMES = {
    "a": ("lattice parameter", "Å", 4),
    "bulk_modulus_eos": ("B, equation of state", "GPa", 1),
    "bulk_modulus": ("B, (C11 + 2 C12) / 3", "GPa", 1),
    "c11": ("C11", "GPa", 1),
    "c12": ("C12", "GPa", 1),
    "c44": ("C44", "GPa", 1),
    "c44_clamped": ("C44, atoms not relaxed", "GPa", 1),
}


BLUE, DARK = "#0a6ebd", "#333333"


def table(result: Comparison) -> str:
    """The comparison as text; ± is the standard deviation over the members."""
    lines = [f"{'':24s} {'theory':>9s} {'committee':>10s} {'±':>7s} {'difference':>11s}"]
    rows = {name: numbers for name, *numbers in result.rows()}
    for name, (label, unit, digits) in NAMES.items():
        theory, committee, spread = rows[name]
        numbers = (
            f"{theory:9.{digits}f} {committee:10.{digits}f} {spread:7.{digits}f} {committee - theory:+11.{digits}f}"
        )
        lines.append(f"{label:24s} {numbers}  {unit}")
    return "\n".join(lines) + "\n"


def draw(result: Comparison, path: Path) -> None:
    """Draw both equations of state, and the elastic constants side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    volumes = np.linspace(result.volumes.min(), result.volumes.max(), 100)
    for member in result.members:
        left.plot(volumes, above_minimum(result, member, volumes), color=BLUE, alpha=0.3, linewidth=1)
    curve = above_minimum(result, result.committee, volumes)
    left.plot(volumes, curve, color=BLUE, label="committee; faint: its members")
    points = above_minimum(result, result.theory, result.volumes)
    left.plot(result.volumes, points, color=DARK, linestyle="", marker="o", label="theory, held out")
    left.set_xlabel("volume, Å³/atom")
    left.set_ylabel("energy above the minimum, meV/atom")
    names = ["c11", "c12", "c44", "bulk_modulus"]
    rows = {name: numbers for name, *numbers in result.rows()}
    theory, committee, spread = np.array([rows[name] for name in names]).T
    places = np.arange(len(names))
    right.bar(places - 0.2, theory, width=0.38, color=DARK, label="theory")
    right.bar(places + 0.2, committee, width=0.38, color=BLUE, label="committee, ± over its members")
    right.errorbar(places + 0.2, committee, yerr=spread, color=DARK, linestyle="", capsize=4)
    right.set_xticks(places, ["C₁₁", "C₁₂", "C₄₄", "B"])
    right.set_ylabel("GPa")
    for axes in (left, right):
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def above_minimum(result: Comparison, crystal: Crystal, volumes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Energies above the minimum of the fit, meV/atom: at the volumes of the scan as they are, elsewhere the fit."""
    fit = birch_murnaghan(result.volumes, crystal.energies)
    lowest = fit(at_rest(result.volumes, crystal.energies)[0] ** (-2 / 3))
    energies = crystal.energies if volumes is result.volumes else fit(volumes ** (-2 / 3))
    return 1000 * (energies - lowest)


def say(line: str) -> None:
    """Write to stderr: stdout is for results."""
    sys.stderr.write(line + "\n")


def main(arguments: Sequence[str] | None = None) -> Comparison:
    """Compare, print the table, and write ``properties.json`` and ``properties.png``."""
    parser = argparse.ArgumentParser(description="Equation of state and elastic constants: committee and theory.")
    parser.add_argument("campaign", type=Path, nargs="?", default=Path("campaign.yaml"), help="the campaign file")
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for results")
    parser.add_argument("--element", default="Si", help="which crystal")
    parser.add_argument("--structure", default="diamond", help="its structure: diamond, fcc or bcc")
    parser.add_argument("--a", type=float, default=5.47, help="about its lattice parameter, Å")
    options = parser.parse_args(arguments)
    result = compare(options.campaign, bulk(options.element, options.structure, a=options.a), options.a)
    options.output.mkdir(parents=True, exist_ok=True)
    draw(result, options.output / "properties.png")
    numbers = {name: dict(zip(("theory", "committee", "spread"), x, strict=True)) for name, *x in result.rows()}
    (options.output / "properties.json").write_text(json.dumps(numbers, indent=1) + "\n")
    sys.stdout.write(table(result))
    say(f"{result.labels} reference labels, held out of the campaign; {result.paid} of them computed now")
    say(f"{result.near} of these structures are near copies of structures that the campaign labelled")
    say(f"the committee's largest u over these structures: {result.u:.2f}")
    say(f"plot: {options.output / 'properties.png'}, numbers: {options.output / 'properties.json'}")
    return result


if __name__ == "__main__":
    try:
        main()
    except AlflowError as error:
        sys.exit(f"error: {error}")
