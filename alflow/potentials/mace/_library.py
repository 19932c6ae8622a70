"""The only file that touches mace-torch: making, reading and describing models."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alflow.errors import CheckpointError, PotentialError
from alflow.potentials._engine import DTYPES
from alflow.potentials.mace._engine import EdgeModule, Graph
from alflow.potentials.mace._spec import MaceSpec

AGREEMENT = 1e-6
"""Largest difference of a rebuilt model's energies, of the largest magnitude, with which it is used."""
_SWITCH = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_GATES = {"silu": torch.nn.functional.silu, "tanh": torch.tanh, "abs": torch.abs, "relu": torch.relu}
_CLASSES = {
    "interaction_cls": "interaction_classes",
    "interaction_cls_first": "interaction_classes",
    "readout_cls": "readout_classes",
}
_IRREPS = ("hidden_irreps", "MLP_irreps", "edge_irreps")


class MaceModule(EdgeModule):
    """A MACE model as a function of edge vectors.

    The energy is that of interaction: reference energies of the elements are added outside, in double precision.

    Parameters
    ----------
    model
        a ``ScaleShiftMACE``
    head
        which of its heads
    """

    def __init__(self, model: torch.nn.Module, head: int = 0) -> None:
        super().__init__()
        self.model = model
        self.head = head
        table = torch.full((119,), -1, dtype=torch.int64)
        numbers: Any = model.atomic_numbers
        table[numbers.cpu()] = torch.arange(len(numbers))
        self.register_buffer("table", table, persistent=False)
        self.n_elements = len(numbers)
        self.register_buffer("scalars", _scalars(model), persistent=False)

    def forward(self, vectors: torch.Tensor, graph: Graph) -> tuple[torch.Tensor, torch.Tensor]:
        """See :class:`EdgeModule`; MACE's own vectors lead from the neighbour to the centre."""
        table: Any = self.table
        species = table[graph.numbers]
        counts = torch.bincount(graph.structure, minlength=graph.n_structures)
        zero = vectors.new_zeros(())
        data = {
            # all geometry is in the shifts: positions are zero, so that vectors = shifts
            "positions": zero.expand(len(species), 3).clone(),
            "shifts": -vectors,
            "unit_shifts": torch.zeros_like(vectors, requires_grad=False).detach(),
            "cell": zero.expand(3 * graph.n_structures, 3).clone(),
            "edge_index": torch.stack([graph.neighbours, graph.centres]),
            "node_attrs": torch.nn.functional.one_hot(species, self.n_elements).to(vectors.dtype),
            "batch": graph.structure,
            "ptr": torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
            "head": torch.full((graph.n_structures,), self.head, dtype=torch.int64, device=vectors.device),
        }
        out = self.model(data, compute_force=False)
        scalars: Any = self.scalars
        return out["interaction_energy"], out["node_feats"].index_select(1, scalars)


def require_mace() -> Any:
    """Return the module ``mace.modules``.

    Raises
    ------
    PotentialError
        if mace-torch is not installed or cannot be imported
    """
    before = os.environ.get(_SWITCH)
    try:
        with _quiet():
            return import_module("mace.modules")
    except ImportError as error:
        raise PotentialError(
            f"MACE models need mace-torch, which cannot be imported here ({error}): "
            "pip install 'alflow[mace]', in an environment of its own, for it holds e3nn at an old version"
        ) from error
    finally:
        # importing mace makes every torch.load of the process execute what it reads unless told otherwise
        if before is None:
            os.environ.pop(_SWITCH, None)
        else:
            os.environ[_SWITCH] = before


def new_models(
    spec: MaceSpec, numbers: NDArray[np.int64], *, scale: float, neighbours: float, seed: int
) -> tuple[list[MaceModule], dict[str, Any]]:
    """Make K small models that differ by their random start; also gives the plain values that make them.

    Parameters
    ----------
    spec
        sizes
    numbers
        (n_elements,) atomic numbers, rising
    scale
        eV per unit of the network's output
    neighbours
        mean number of edges per atom
    seed
        member k depends on (seed, k) only
    """
    require_mace()
    hidden = " + ".join(f"{spec.channels}x{degree}{'eo'[degree % 2]}" for degree in range(spec.l_hidden + 1))
    kind = "RealAgnosticResidualInteractionBlock"
    config: dict[str, Any] = {
        "r_max": spec.r_max,
        "num_bessel": 8,
        "num_polynomial_cutoff": 5,
        "max_ell": spec.l_max,
        "interaction_cls": kind,
        "interaction_cls_first": kind,
        "num_interactions": spec.n_layers,
        "num_elements": len(numbers),
        "hidden_irreps": hidden,
        "MLP_irreps": "16x0e",
        "atomic_energies": [0.0] * len(numbers),
        "avg_num_neighbors": neighbours,
        "atomic_numbers": [int(z) for z in numbers],
        "correlation": spec.correlation,
        "gate": "silu",
        "radial_MLP": [64, 64, 64],
        "atomic_inter_scale": scale,
        "atomic_inter_shift": 0.0,
        "heads": ["Default"],
    }
    made = []
    for member in range(spec.n_members):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((seed * 1_000_003 + member) % (2**63))
            made.append(MaceModule(build_model(config, spec.dtype)))
    return made, config


def build_model(config: Mapping[str, Any], dtype: str) -> torch.nn.Module:
    """Make a model from plain values; see :func:`describe_model`.

    Raises
    ------
    PotentialError
        if mace-torch is missing or does not know a part of it
    """
    modules, irreps = require_mace(), import_module("e3nn.o3").Irreps
    arguments = dict(config)
    try:
        for key, table in _CLASSES.items():
            if key in arguments:
                arguments[key] = getattr(modules, table)[arguments[key]]
        for key in _IRREPS:
            if arguments.get(key) is not None:
                arguments[key] = irreps(arguments[key])
        if arguments.get("gate") is not None:
            arguments["gate"] = _GATES[arguments["gate"]]
        for key in ("atomic_energies", "atomic_inter_scale", "atomic_inter_shift"):
            arguments[key] = np.array(arguments[key], dtype=np.float64)
        with _quiet(), _default_dtype(DTYPES[dtype]):
            model: torch.nn.Module = modules.ScaleShiftMACE(**arguments)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise PotentialError(
            f"this mace-torch cannot make the model ({error}): install the version it is from"
        ) from error
    return model.to(DTYPES[dtype]).eval()


def read_foundation(path: Path, spec: MaceSpec) -> tuple[MaceModule, dict[str, Any], str]:
    """Read a user's MACE model and make it anew from plain values.

    Reading it unpickles it, which can execute code: `spec.trust_foundation` says that the user trusts the file.

    Returns
    -------
    module
        the foundation model, in the precision of the spec
    config
        plain values from which :func:`build_model` makes it
    digest
        SHA-256 of the file

    Raises
    ------
    CheckpointError
        if the file is missing, no MACE model, or of a kind that is not supported
    PotentialError
        if mace-torch is missing or `head` is not one of its heads
    """
    if not path.is_file():
        raise CheckpointError(f"there is no foundation model at {path}: give the file of a MACE model")
    require_mace()
    try:
        with _quiet():
            found = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # what a foreign pickle raises is its own affair
        reason = (str(error).partition("\n")[0] or type(error).__name__)[:200]
        raise CheckpointError(f"{path} cannot be read as a MACE model: {reason}") from error
    if type(found).__name__ != "ScaleShiftMACE":
        raise CheckpointError(
            f"{path} holds {type(found).__name__}, not a ScaleShiftMACE model as mace_run_train writes it "
            "(NAME.model; not NAME_compiled.model, and no checkpoint of a training)"
        )
    head = choose_head(list(getattr(found, "heads", None) or ["Default"]), spec.head, path)
    config = describe_model(found, path)
    model = build_model(config, spec.dtype)
    try:
        model.load_state_dict(found.state_dict())
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{path} was written by another mace-torch: {reason}") from error
    rebuilt, original = MaceModule(model, head), MaceModule(found.to(DTYPES[spec.dtype]).eval(), head)
    off = _difference(rebuilt, original, DTYPES[spec.dtype])
    if not off <= (AGREEMENT if spec.dtype == "float64" else 1e3 * AGREEMENT):
        raise CheckpointError(f"{path} has parts that alflow does not know: made anew, it differs by {off:.2g}")
    return rebuilt, config, hashlib.sha256(path.read_bytes()).hexdigest()


def choose_head(heads: Sequence[str], wanted: str | None, path: Path) -> int:
    """Index of the head; raises PotentialError where the choice is open or wrong."""
    if wanted is None and len(heads) > 1:
        raise PotentialError(f"{path} has the heads {', '.join(heads)}: choose one with `head`")
    if wanted is not None and wanted not in heads:
        raise PotentialError(f"{path} has no head {wanted!r}; it has {', '.join(heads)}")
    return 0 if wanted is None else list(heads).index(wanted)


def describe_model(model: torch.nn.Module, path: Path) -> dict[str, Any]:
    """Everything that makes the model but its weights, as JSON values.

    Raises
    ------
    CheckpointError
        if it has parts that alflow cannot make again
    """
    with _quiet():
        found = dict(import_module("mace.tools.scripts_utils").extract_config_mace_model(model))
    strange = [key for key in ("embedding_specs", "cueq_config", "oeq_config") if found.pop(key, None) is not None]
    gate = found.get("gate")
    if gate is not None and gate.__name__ not in _GATES:
        strange.append(f"gate {gate.__name__}")
    if "error" in found or strange:
        raise CheckpointError(f"{path} has parts that alflow does not know: {found.get('error', ', '.join(strange))}")
    return {key: _plain(value) for key, value in found.items()}


def reference_energies(model: torch.nn.Module, head: int) -> dict[int, float]:
    """Energy of an isolated atom of every element, eV, by atomic number."""
    any_model: Any = model
    energies = np.atleast_2d(any_model.atomic_energies_fn.atomic_energies.detach().cpu().double().numpy())
    numbers = [int(z) for z in any_model.atomic_numbers]
    return dict(zip(numbers, (float(e) for e in energies[min(head, len(energies) - 1)]), strict=True))


def _plain(value: Any) -> Any:
    if isinstance(value, type):
        return value.__name__
    if callable(value):
        return value.__name__
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if type(value).__name__ == "Irreps":
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _scalars(model: torch.nn.Module) -> torch.Tensor:
    """Columns of the node features that are invariant under rotation and reflection."""
    columns, start = [], 0
    products: Any = model.products
    for product in products:
        irreps = product.linear.irreps_out
        for (_, irrep), part in zip(irreps, irreps.slices(), strict=True):
            if irrep.l == 0 and irrep.p == 1:
                columns += list(range(start + part.start, start + part.stop))
        start += irreps.dim
    return torch.tensor(columns, dtype=torch.int64)


def _difference(one: MaceModule, other: MaceModule, dtype: torch.dtype) -> float:
    """Largest difference of energies and features of a few clusters of the model's elements."""
    rng = np.random.default_rng(0)
    size = 5
    numbers: Any = one.model.atomic_numbers
    chosen = numbers.cpu().numpy()[rng.integers(len(numbers), size=size)]
    centres, neighbours = np.nonzero(~np.eye(size, dtype=bool))
    positions = rng.normal(size=(size, 3)) * 1.5
    graph = Graph(
        numbers=torch.from_numpy(chosen),
        centres=torch.from_numpy(centres),
        neighbours=torch.from_numpy(neighbours),
        structure=torch.zeros(size, dtype=torch.int64),
        n_structures=1,
    )
    vectors = torch.from_numpy(positions[neighbours] - positions[centres]).to(dtype)
    with torch.no_grad(), _quiet():
        pairs = list(zip(one(vectors, graph), other(vectors, graph), strict=True))
    return float(torch.stack([(a - b).abs().max() / b.abs().max().clamp(min=1.0) for a, b in pairs]).max())


@contextmanager
def _quiet() -> Iterator[None]:
    """Let mace-torch and e3nn not warn about their own age."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
