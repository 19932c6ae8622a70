"""Kinds of potentials: the native committee, MACE, and what other packages register; and files of any of them."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel

from alflow.errors import ConfigError
from alflow.potentials._protocol import Committee
from alflow.potentials._spec import CommitteeSpec, TrainingSpec
from alflow.potentials.mace._spec import MaceSpec

if TYPE_CHECKING:
    from alflow.potentials._report import TrainingProgress, TrainingReport
    from alflow.potentials._targets import Targets
    from alflow.structures import LabelledStructure

GROUP = "alflow.potentials"


class TrainedCommittee(Committee, Protocol):
    """A committee that knows how it was made."""

    @property
    def spec(self) -> BaseModel:
        """The settings that it was made with."""
        ...

    @property
    def report(self) -> TrainingReport | None:
        """The record of its training; None after loading."""
        ...


class TrainFunction(Protocol):
    """Trains a committee; see :func:`train_committee`. ``directory`` is where relative paths in the spec start from."""

    def __call__(
        self,
        train: Sequence[LabelledStructure],
        spec: Any,
        training: TrainingSpec,
        *,
        targets: Targets,
        initial: Committee | None,
        seed: int,
        checkpoint_dir: Path | None,
        progress: Callable[[TrainingProgress], None] | None,
        directory: Path,
    ) -> TrainedCommittee:
        """Train on labelled structures."""
        ...


@dataclass(frozen=True, kw_only=True)
class PotentialKind:
    """One kind of potential that a campaign can choose with ``committee: kind:``.

    Another package registers its own as an entry point of the group ``alflow.potentials``, under the name of the kind.

    Parameters
    ----------
    settings
        model of the section ``committee``; its literal ``kind`` is the name, and it has ``n_members``
    train
        trains a committee
    load
        reads a committee that was saved
    state
        whether it can be used on this machine (None: yes, but slowly), and a sentence about it
    """

    settings: type[BaseModel]
    train: TrainFunction
    load: Callable[[Path], TrainedCommittee]
    state: Callable[[Any], tuple[bool | None, str]]


def potential_kind(name: str) -> PotentialKind:
    """Return a kind by name.

    Raises
    ------
    ConfigError
        if it is not known here
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    for point in entry_points(group=GROUP, name=name):
        kind: PotentialKind = point.load()
        return kind
    raise ConfigError(f"there is no potential {name!r} here; install the package that it comes from")


def registered_settings() -> tuple[type[BaseModel], ...]:
    """Settings models of all kinds, those of alflow first."""
    others = [point.load().settings for point in entry_points(group=GROUP) if point.name not in _BUILT_IN]
    return (*(kind.settings for kind in _BUILT_IN.values()), *others)


def load_committee(path: str | Path) -> TrainedCommittee:
    """Read a committee, native or of MACE models; predictions are bitwise those of the one that was saved.

    Raises
    ------
    CheckpointError
        if the file is missing, damaged, of another version, or its parts do not fit together
    PotentialError
        if it holds MACE models and mace-torch is missing
    """
    from alflow.potentials.mace._checkpoint import FORMAT

    return (MACE if _format_of(Path(path)) == FORMAT else NATIVE).load(Path(path))


def _format_of(path: Path) -> str | None:
    """What a file says it holds; None where it cannot be read."""
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        KeyError,
        pickle.UnpicklingError,
    ):  # its reader says what is wrong
        return None
    return content.get("format") if isinstance(content, dict) else None


def _train_native(
    train: Sequence[LabelledStructure], spec: CommitteeSpec, training: TrainingSpec, **rest: Any
) -> TrainedCommittee:
    from alflow.potentials._committee import NativeCommittee
    from alflow.potentials._train import train_committee

    rest.pop("directory")
    given = rest.pop("initial")
    initial = given if isinstance(given, NativeCommittee) else None
    return _noting(given, initial, train_committee(train, spec, training, initial=initial, **rest))


def _noting(given: Committee | None, used: Committee | None, made: Any) -> TrainedCommittee:
    """Let the report say where an earlier committee was of no use."""
    if given is not used:
        note = "started from scratch: the earlier committee is of another kind"
        made = replace(made, report=replace(made.report, warm_start=note))
    committee: TrainedCommittee = made
    return committee


def _load_native(path: Path) -> TrainedCommittee:
    from alflow.potentials._checkpoint import load_committee

    return load_committee(path)


def _native_state(spec: CommitteeSpec) -> tuple[bool | None, str]:
    from alflow.potentials._engine import kernel_state

    compiled, text = kernel_state(spec)
    return compiled or None, text


def _train_mace(
    train: Sequence[LabelledStructure], spec: MaceSpec, training: TrainingSpec, **rest: Any
) -> TrainedCommittee:
    from alflow.potentials.mace import MaceCommittee, train_mace_committee

    given = rest.pop("initial")
    initial = given if isinstance(given, MaceCommittee) else None
    return _noting(given, initial, train_mace_committee(train, spec, training, initial=initial, **rest))


def _load_mace(path: Path) -> TrainedCommittee:
    from alflow.potentials.mace import load_mace_committee

    return load_mace_committee(path)


def _mace_state(spec: MaceSpec) -> tuple[bool | None, str]:
    if importlib.util.find_spec("mace") is None:
        return False, "MACE models need mace-torch: pip install 'alflow[mace]', in an environment of its own"
    from alflow.potentials._device import wanted_device

    start = "from scratch" if spec.foundation is None else f"from {spec.foundation}"
    return True, f"{spec.n_members} MACE models {start} (mace-torch {version('mace-torch')}, {wanted_device()})"


NATIVE = PotentialKind(settings=CommitteeSpec, train=_train_native, load=_load_native, state=_native_state)
MACE = PotentialKind(settings=MaceSpec, train=_train_mace, load=_load_mace, state=_mace_state)

_BUILT_IN = {"native": NATIVE, "mace": MACE}
