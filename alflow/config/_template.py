"""The campaign file that `alflow init` writes."""

from __future__ import annotations

from collections.abc import Sequence

from alflow.config._campaign import CampaignConfig

_SHOWN = ("targets", "selection", "stopping", "filters", "duplicates", "committee", "training", "discovery")

_LABELERS = {
    "emt": """\
theory:
  # Effective medium theory: fast, for Al Cu Ag Au Ni Pd Pt. Change it for a real code before you believe a result.
  labeler: emt
""",
    "ase": """\
theory:
  # Any ASE calculator. What it is stands in the file alflow-worker.yaml beside this one, under `labelers: my-dft:`;
  # a campaign never says what runs on a machine.
  labeler: ase
  name: my-dft
""",
    "replay": """\
theory:
  # Labels from a file of known labels: a retrospective campaign, without any calculation.
  labeler: replay
  settings:
    path: labels.extxyz
    # energy_key: REF_energy
    # forces_key: REF_forces
    # stress_key: REF_stress
""",
}

_OTHER_LABELER = """\
theory:
  labeler: {labeler}
  settings: {{}}
"""

_SOURCES = """\
# What proposes candidates, in every round.
sources:
  - kind: enumerate            # every symmetry-distinct ordering on parent lattices
    parents: [fcc]             # prototypes, or structure files
    max_atoms: 6
  - kind: relax                # relax them with the committee
  - kind: dynamics             # molecular dynamics with the committee; a walker ends where it becomes unsure
    temperatures: [300, 800]   # K
    walkers: 8
    steps: 200
  # - kind: perturb            # random displacements and strains of labelled structures
  #   n: 50
  # - kind: files              # extxyz, CIF, POSCAR, ASE database
  #   paths: [structures/*.cif]
"""

_REPLAY_SOURCES = """\
# What proposes candidates. Only structures of the file have labels, so only they can be asked for.
sources:
  - kind: files
    paths: [labels.extxyz]
"""

_REPLAY_ROUND0 = """\
# The designed first round proposes structures that no file of known labels holds: leave it to the sources.
round0:
  prototypes: []
  n_spread: 0
  n_pool: 10                   # structures of the file, drawn at random, to begin with

"""

_TEMPLATE = """\
# A campaign of alflow. Lines that start with # are remarks, or settings at their default.
# Every setting, with unit and default, is described in docs/configuration.md. Check this file with `alflow check`.
version: 1
name: {name}
goal: Find the stable compounds of {system}, and a potential for them
elements: [{elements}]

# Everything the campaign knows; relative to this file. Several machines: postgresql+psycopg://user:${{PGPASSWORD}}@host/db
ledger: sqlite:///{name}.db
seed: 0

{theory}
# How well things have to be known (1σ). u is the largest error in units of these: u > 1 is not known well enough.
targets:
  energy: 0.005                # eV/atom
  force: 0.1                   # eV/Å, on the worst atom
  stress: 0.01                 # eV/Å³, 1.6 GPa
  # u_max: {targets.u_max}                # above it a candidate is implausible and set aside

{round0}{sources}
# What a batch is made of.
selection:
  batch: 10                    # labels per round
  # random_fraction: {selection.random_fraction}       # share drawn at random: it decides when to stop

# What the campaign may spend; it stops earlier where a rule says so.
budget:
  labels: 200
  # rounds: 20
  # wall_hours: 12
  # core_hours: 100

# stopping:
#   tolerance: {stopping.tolerance}             # largest share of candidates that may miss a target

# filters:
#   min_distance_factor: {filters.min_distance_factor}   # closest approach over the sum of covalent radii

# duplicates:
#   displacement: {duplicates.displacement}        # Å: closer than this to a structure that is kept is not paid for
#   strain: {duplicates.strain}
#   relation: {duplicates.relation}         # identical: only identical structures are duplicates

# committee:
#   n_members: {committee.n_members}
#   r_max: {committee.r_max}                 # Å

# explorer: {{rounds: 1, calculators: [my-model]}}    # a model in alflow-worker.yaml leads the exploration of round 0

# training:
#   steps: {training.steps}                 # gradient steps from scratch

# discovery:
#   e_hull_window: {discovery.e_hull_window}        # eV/atom: relaxed structures below it are labelled to confirm
#   stable_tolerance: {discovery.stable_tolerance}    # eV/atom

# approval: manual             # every batch waits for `alflow approve`
"""

_ROUND0 = """\
# The designed first round: what is labelled before there is a committee.
round0:
  prototypes: [fcc, bcc, hcp]  # of every element
  n_spread: 20                 # small random cells, spread over composition, volume and distortion

"""


def init_template(name: str = "campaign", elements: Sequence[str] = ("Ni", "Pt"), labeler: str = "emt") -> str:
    """Return a commented campaign file to start from.

    Parameters
    ----------
    name
        name of the campaign
    elements
        element symbols
    labeler
        registered name of the labeler; `replay` needs a file of known labels beside the campaign file

    Examples
    --------
    >>> from alflow.config import init_template
    >>> init_template("ni-pt", ["Ni", "Pt"]).splitlines()[3]
    'name: ni-pt'
    """
    replay = labeler == "replay"
    return _TEMPLATE.format(
        name=name,
        system="-".join(elements),
        elements=", ".join(elements),
        theory=_LABELERS.get(labeler, _OTHER_LABELER.format(labeler=labeler)),
        round0=_REPLAY_ROUND0 if replay else _ROUND0,
        sources=_REPLAY_SOURCES if replay else _SOURCES,
        # Remarks show the defaults as they are, not as they once were.
        **{section: CampaignConfig.model_fields[section].get_default(call_default_factory=True) for section in _SHOWN},
    )
