"""A label that somebody computed elsewhere, as a file holds it, and which settings go together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from alflow.structures import LabelledStructure

OTHER_SETTINGS = "settings other than those of most"


@dataclass(frozen=True, kw_only=True)
class ForeignSettings:
    """What a file says about how its labels were computed.

    Parameters
    ----------
    kind
        what wrote it; only settings of one kind compare
    shared
        (name, value) of what has to agree between any two calculations; all of one kind have the same names
    species
        (element, value) of what has to agree where two calculations share the element
    """

    kind: str
    shared: tuple[tuple[str, str], ...]
    species: tuple[tuple[str, str], ...]

    def named(self) -> list[tuple[str, str]]:
        """Every setting with its name."""
        return [*self.shared, *((f"dataset of {element}", value) for element, value in self.species)]


@dataclass(frozen=True, kw_only=True, eq=False)
class ForeignFrame:
    """One label of a file, or why there is none.

    Parameters
    ----------
    origin
        file and which part of it
    example
        the label; None where it was refused
    refused
        why, in words that many frames share; empty for a label
    detail
        the same for this frame
    settings
        what the file says of the theory; None where it says nothing
    """

    origin: str
    example: LabelledStructure | None = None
    refused: str = ""
    detail: str = ""
    settings: ForeignSettings | None = None


@dataclass(frozen=True, kw_only=True)
class FoundSetting:
    """One value of a setting that several calculations have differently: in how many labels, and whether those stay."""

    setting: str
    value: str
    labels: int
    kept: bool


def element_of(title: str) -> str:
    """Element of the TITEL of a PAW dataset, ``PAW_PBE Fe_pv 06Sep2000``; empty where there is none."""
    words = title.split()
    return words[1].partition("_")[0].partition(".")[0] if len(words) > 1 else ""


def with_hubbard(dataset: str, u: float, j: float = 0.0) -> str:
    """A dataset with the U and J, eV, that go with it."""
    return dataset + (f", U = {u:g} eV" if u else "") + (f", J = {j:g} eV" if j else "")


def one_theory(
    frames: Sequence[ForeignFrame], elements: Collection[str] | None = None
) -> tuple[list[ForeignFrame], list[FoundSetting]]:
    """Keep the labels whose settings most of them share, and refuse the others, so that no two theories mix.

    Settings that have to agree everywhere are decided together, then the dataset of every element in alphabetical
    order. Of equally frequent values the one found first stays. Frames that say nothing of their settings stay.

    Parameters
    ----------
    frames
        of one import
    elements
        labels that hold others stay as they are and have no say; None: all have

    Returns
    -------
    frames
        in their order; those with other settings without their label, with the reason
    differences
        all values of the settings in which they differ, the frequent ones first; empty where they agree
    """
    refused: dict[int, str] = {}
    told = {
        i: f.settings
        for i, f in enumerate(frames)
        if f.settings is not None
        and f.example is not None
        and (elements is None or set(f.example.structure.elements) <= set(elements))
    }
    differences: list[FoundSetting] = []
    for kind in dict.fromkeys(settings.kind for settings in told.values()):
        usable = {i: settings for i, settings in told.items() if settings.kind == kind}
        staying = _decide(usable, refused)
        differences += _differences(list(usable.values()), list(staying.values()))
    kept = [
        replace(f, example=None, refused=OTHER_SETTINGS, detail=refused[i]) if i in refused else f
        for i, f in enumerate(frames)
    ]
    return kept, differences


def _decide(usable: dict[int, ForeignSettings], refused: dict[int, str]) -> dict[int, ForeignSettings]:
    """Those that stay; says of every other one what differs."""
    most = Counter(s.shared for s in usable.values()).most_common(1)[0][0]
    staying = {}
    for i, settings in usable.items():
        if settings.shared == most:
            staying[i] = settings
            continue
        pairs = zip(settings.shared, most, strict=True)
        refused[i] = "; ".join(
            f"{name} {mine}, most have {theirs}" for (name, mine), (_, theirs) in pairs if mine != theirs
        )
    for element in sorted({e for s in staying.values() for e, _ in s.species}):
        values = Counter(dict(s.species)[element] for s in staying.values() if element in dict(s.species))
        common = values.most_common(1)[0][0] if values else None
        for i, settings in list(staying.items()):
            mine = dict(settings.species).get(element, common)
            if mine != common:
                refused[i] = f"dataset of {element} {mine}, most have {common}"
                del staying[i]
    return staying


def _differences(given: Sequence[ForeignSettings], staying: Sequence[ForeignSettings]) -> list[FoundSetting]:
    counts = Counter(pair for s in given for pair in s.named())
    stay = {pair for s in staying for pair in s.named()}
    shared = [name for settings in given[:1] for name, _ in settings.shared]
    values: dict[str, list[tuple[str, int]]] = {name: [] for name in [*shared, *sorted(name for name, _ in counts)]}
    for (name, value), n in counts.most_common():
        values[name].append((value, n))
    return [
        FoundSetting(setting=name, value=value, labels=n, kept=(name, value) in stay)
        for name, found in values.items()
        if len(found) > 1
        for value, n in found
    ]
