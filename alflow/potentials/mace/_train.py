"""Training a committee of MACE models: from scratch, from a foundation model, or from an earlier committee."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from alflow.errors import PotentialError
from alflow.potentials._allocator import keep_freed_memory
from alflow.potentials._dataset import TrainingSet, as_examples
from alflow.potentials._distance import FeatureDistance
from alflow.potentials._engine import DTYPES
from alflow.potentials._geometry import EdgeList
from alflow.potentials._optimiser import OptimiserState
from alflow.potentials._references import composition, energy_scale, fit_references
from alflow.potentials._report import TrainingProgress
from alflow.potentials._repulsion import Repulsion
from alflow.potentials._spec import TrainingSpec, changed_fields
from alflow.potentials._targets import Targets
from alflow.potentials._train import choose_held_out, member_shares, training_report
from alflow.potentials._trainer import Trainer, TrainerState
from alflow.potentials._training_checkpoint import TrainingCheckpoint, fingerprint_of
from alflow.potentials._warm_start import zero_note, zero_shift
from alflow.potentials.mace._committee import MaceCommittee, MaceCore
from alflow.potentials.mace._engine import ModuleEngine
from alflow.potentials.mace._library import MaceModule, new_models, read_foundation, reference_energies
from alflow.potentials.mace._spec import MaceSpec
from alflow.structures import element_symbol

if TYPE_CHECKING:
    from ase import Atoms

    from alflow.structures import LabelledStructure

SPREAD = 0.05
"""Random change of every member's start, of the root mean square of each weight tensor of the foundation model."""


def train_mace_committee(
    train: Sequence[Atoms | LabelledStructure],
    spec: MaceSpec | None = None,
    training: TrainingSpec | None = None,
    *,
    targets: Targets | None = None,
    initial: MaceCommittee | None = None,
    seed: int = 0,
    checkpoint_dir: Path | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
    directory: Path | None = None,
) -> MaceCommittee:
    """Train K MACE models on labelled structures; the arguments are those of :func:`train_committee`.

    Loss, schedule, early stopping, bootstrap weights and checkpoints are those of the native committee; the learning
    rate stands in `spec`. Reference energies are fitted per element: to the labels, or to what separates them from the
    foundation model, whose energies are of another theory. Isolated atoms teach nothing here and are left out.

    Parameters
    ----------
    train
        labels: energy, and where known forces and stress
    spec
        sizes, or the foundation model
    training
        budget, optimiser, weights of the loss; with a foundation model `warm_steps` steps
    targets
        the user's targets
    initial
        an earlier committee to start from, of the same spec; new elements make it start afresh
    seed
        of the members' random starts and the order of examples
    checkpoint_dir
        folder for checkpoints: the same call after a crash goes on where it stood
    progress
        called after every epoch
    directory
        folder that the path of the foundation model starts from; default: the working directory

    Raises
    ------
    PotentialError
        if mace-torch is missing, labels are missing, not finite or given twice, the foundation model lacks an element,
        or training diverges
    CheckpointError
        if the foundation model or a checkpoint cannot be used
    """
    keep_freed_memory()
    spec, targets = spec or MaceSpec(), targets or Targets()
    training = (training or TrainingSpec()).model_copy(
        update={"learning_rate": spec.rate, "warm_learning_rate": spec.rate}
    )
    examples = as_examples(train)
    numbers = np.unique(np.concatenate([e.structure.numbers for e in examples]))
    start = _start(examples, numbers, spec, initial, seed, directory)
    core = start.core
    edges = [EdgeList.of(e.structure, core.numbers, core.r_max) for e in examples]
    matter = np.array([len(e.centres) > 0 for e in edges])

    held_out = choose_held_out(examples, matter, training)
    learned = np.setdiff1d(np.flatnonzero(matter), held_out)
    if not len(learned):
        raise PotentialError("there is nothing to train on but isolated atoms: give structures in which atoms meet")
    left_out = np.setdiff1d(np.arange(len(examples)), learned)
    share = member_shares(len(examples), left_out, spec.n_members, training, seed)

    note = start.note
    if start.kind == "earlier":
        core, moved = _align_zero(core, examples, learned)
        note += moved
    # isolated atoms stand in the data, so that indices are those of the caller, but in no batch
    data = TrainingSet(core, examples, edges, [Repulsion.of(e, active=False) for e in edges])
    engine: Any = core.engine  # its batches are of another kind than those of the native engines
    trainer = Trainer(
        engine, data, share, learned, held_out, training, targets, seed=seed, warm=start.kind != "scratch"
    )
    state = TrainerState(optimiser=OptimiserState.start(core.weights))
    save = None
    if checkpoint_dir is not None:
        call = f"{fingerprint_of(examples, spec, training, targets, seed, start.core)} {start.digest}"
        checkpoint = TrainingCheckpoint(Path(checkpoint_dir), hashlib.sha256(call.encode()).hexdigest())
        state = checkpoint.load() or state
        save = checkpoint.save
    state = trainer.run(state, save=save, progress=progress)

    core = replace(core, weights=state.result)
    core = replace(core, familiar=_familiar(core, [edges[i] for i in learned]))
    committee = MaceCommittee(core=core, targets=targets, seed=seed)
    report = training_report(committee, core.references, examples, learned, held_out, share, state, note)
    return replace(committee, report=report)


def foundation_committee(
    spec: MaceSpec, *, targets: Targets | None = None, directory: Path | None = None
) -> MaceCommittee:
    """Return a foundation model as it is, as a committee of one: for exploring before there are labels.

    It has no spread, so that `u` cannot be asked of it.

    Raises
    ------
    PotentialError
        if mace-torch is missing or the spec names no foundation model
    CheckpointError
        if the file cannot be used
    """
    if spec.foundation is None:
        raise PotentialError("there is no foundation model: give its file as `foundation`")
    module, config, _ = read_foundation((directory or Path.cwd()) / spec.foundation.expanduser(), spec)
    own = reference_energies(module.model, module.head)
    numbers = np.array(sorted(own), dtype=np.int64)
    engine = ModuleEngine(module, _trainable(module, spec), DTYPES[spec.dtype])
    core = MaceCore(
        spec=spec.model_copy(update={"n_members": 1}),
        numbers=numbers,
        references=np.array([own[int(z)] for z in numbers]),
        engine=engine,
        weights=engine.row().unsqueeze(0),
        config=config,
        head=module.head,
    )
    return MaceCommittee(core=core, targets=targets or Targets())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Start:
    """What is trained, its origin, a sentence on that (empty: as asked for), and a digest of what is frozen."""

    core: MaceCore
    kind: Literal["scratch", "foundation", "earlier"]
    note: str = ""
    digest: str = ""


def _start(
    examples: Sequence[LabelledStructure],
    numbers: NDArray[np.int64],
    spec: MaceSpec,
    initial: MaceCommittee | None,
    seed: int,
    directory: Path | None,
) -> _Start:
    why_not = None if initial is None else _why_not(initial, spec, numbers)
    if initial is not None and why_not is None:
        frozen = b"".join(
            value.detach().cpu().numpy().tobytes()
            for name, value in initial.core.engine.module.state_dict().items()
            if name not in initial.core.engine.shapes
        )
        return _Start(
            core=initial.core,
            kind="earlier",
            note="started from the weights of the earlier committee",
            digest=hashlib.sha256(frozen).hexdigest(),
        )
    if spec.foundation is None:
        note = f"started from scratch: {why_not}" if why_not else ""
        return _Start(core=_from_scratch(examples, numbers, spec, seed), kind="scratch", note=note)
    core, digest = _from_foundation(examples, numbers, spec, seed, directory)
    note = f"started from the foundation model {spec.foundation}" + (f": {why_not}" if why_not else "")
    return _Start(core=core, kind="foundation", note=note, digest=digest)


def _why_not(initial: MaceCommittee, spec: MaceSpec, numbers: NDArray[np.int64]) -> str | None:
    """Say why an earlier committee cannot be started from; None if it can."""
    if initial.spec != spec:
        return f"the earlier committee has another {', '.join(changed_fields(initial.spec, spec))}"
    new = [element_symbol(int(z)) for z in np.setdiff1d(numbers, initial.core.numbers)]
    return f"the earlier committee does not know {', '.join(new)}" if new else None


def _align_zero(
    core: MaceCore, examples: Sequence[LabelledStructure], learned: NDArray[np.int64]
) -> tuple[MaceCore, str]:
    """Bring the reference energies of an earlier committee to the zero of energy of new labels."""
    of = MaceCommittee(core=replace(core, familiar=None), targets=Targets())
    predicted = of.predict([examples[i].structure for i in learned], stress=False).energy.mean(axis=0)
    off = np.array([examples[i].properties.energy for i in learned]) - predicted
    counts = composition([examples[i] for i in learned], core.numbers)
    moves = zero_shift(counts, off, np.ones(len(learned), dtype=bool), np.zeros(len(core.numbers), dtype=bool))
    elements = [element_symbol(int(z)) for z in core.numbers]
    return replace(core, references=core.references + moves), zero_note(elements, moves)


def _from_scratch(
    examples: Sequence[LabelledStructure], numbers: NDArray[np.int64], spec: MaceSpec, seed: int
) -> MaceCore:
    edges = [EdgeList.of(e.structure, numbers, spec.r_max) for e in examples]
    counts, energies, matter = _compositions(examples, numbers, edges)
    references = fit_references(counts[matter], energies[matter])
    residual = (energies - counts @ references)[matter] / counts[matter].sum(axis=1)
    scale = energy_scale(residual, [e.properties.forces for e in examples if e.properties.forces is not None])
    neighbours = sum(len(e.centres) for e in edges) / sum(len(e.atoms) for e, m in zip(edges, matter, strict=True) if m)
    models, config = new_models(spec, numbers, scale=scale, neighbours=max(neighbours, 1.0), seed=seed)
    engines = [ModuleEngine(m, _trainable(m, spec), DTYPES[spec.dtype]) for m in models]
    return MaceCore(
        spec=spec,
        numbers=numbers,
        references=references,
        engine=engines[0],
        weights=torch.stack([e.row() for e in engines]),
        config=config,
    )


def _from_foundation(
    examples: Sequence[LabelledStructure],
    numbers: NDArray[np.int64],
    spec: MaceSpec,
    seed: int,
    directory: Path | None,
) -> tuple[MaceCore, str]:
    assert spec.foundation is not None
    zero = foundation_committee(spec, directory=directory)
    missing = [element_symbol(int(z)) for z in np.setdiff1d(numbers, zero.core.numbers)]
    if missing:
        raise PotentialError(
            f"the foundation model {spec.foundation} knows nothing of {', '.join(missing)}: choose another, or leave "
            "the structures out that contain it"
        )
    edges = [EdgeList.of(e.structure, numbers, zero.r_max) for e in examples]
    counts, energies, matter = _compositions(examples, numbers, edges)
    off = energies - zero.predict([e.structure for e in examples], stress=False).energy[0]
    own = zero.core.references[np.searchsorted(zero.core.numbers, numbers)]
    start, sizes = zero.core.weights[0], [shape.numel() for shape in zero.core.engine.shapes.values()]
    rows = []
    for member in range(spec.n_members):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + member) % (2**63))
        noise = torch.randn(len(start), generator=generator, dtype=torch.float64).to(start.dtype)
        size = torch.cat([p.square().mean().sqrt().expand(len(p)) for p in torch.split(start, sizes)])
        rows.append(start + SPREAD * size * noise)
    core = replace(
        zero.core,
        spec=spec,
        numbers=numbers,
        references=own + fit_references(counts[matter], off[matter]),
        weights=torch.stack(rows),
    )
    file = (directory or Path.cwd()) / spec.foundation.expanduser()
    return core, hashlib.sha256(file.read_bytes()).hexdigest()


def _familiar(core: MaceCore, edges: Sequence[EdgeList]) -> FeatureDistance:
    """Learn where the training atoms lie in the features of the members."""
    parts = (EdgeList.join([edges[i] for i in chunk]) for chunk in core.chunks(edges))
    return FeatureDistance.learn(core.engine, core.weights, parts, len(core.numbers))


def _compositions(
    examples: Sequence[LabelledStructure], numbers: NDArray[np.int64], edges: Sequence[EdgeList]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Atoms of each element (n, n_elements), energies (n,), and which structures are more than isolated atoms (n,)."""
    counts, energies = composition(examples, numbers), np.array([e.properties.energy for e in examples])
    matter = np.array([len(e.centres) > 0 for e in edges])
    return counts, energies, matter if matter.any() else np.ones(len(examples), dtype=bool)


def _trainable(module: MaceModule, spec: MaceSpec) -> list[str]:
    names = [name for name, _ in module.named_parameters()]
    if spec.foundation is not None and spec.tune == "readouts":
        return [name for name in names if name.startswith("model.readouts.")]
    return names
