"""PAW datasets of VASP: found in the user's folder, checked, and identified by their content."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from alflow.errors import ConfigError

_PLACES = ("{0}/POTCAR", "POTCAR.{0}")
_END = "End of Dataset"


@dataclass(frozen=True, kw_only=True)
class Potcar:
    """One PAW dataset.

    Parameters
    ----------
    element
        chemical symbol
    title
        its TITEL, e.g. ``PAW_PBE Fe_pv 02Aug2007``
    valence
        ZVAL: electrons that are treated explicitly
    enmax
        eV: the cutoff that the dataset was made for
    exchange
        LEXCH: ``PE`` for PBE, ``CA`` for LDA
    content
        the file, decompressed
    """

    element: str
    title: str
    valence: float
    enmax: float
    exchange: str
    content: bytes

    @property
    def sha256(self) -> str:
        """Hexadecimal hash of the decompressed content: the same dataset wherever it lies and however it is packed."""
        return hashlib.sha256(self.content).hexdigest()


def read_potcar(folder: Path, element: str, dataset: str) -> Potcar:
    """Read the dataset of an element.

    Parameters
    ----------
    folder
        the folder that holds ``Fe_pv/POTCAR`` or ``POTCAR.Fe_pv``, each also with ``.gz``
    element
        chemical symbol that the dataset must be for
    dataset
        its name, e.g. ``Fe_pv``

    Raises
    ------
    ConfigError
        if there is no such file, or it is damaged, of another element or of several
    """
    path = _find(folder, dataset)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path} cannot be read: {error}: copy the dataset anew") from error
    text = content.decode("latin-1")
    titles = re.findall(r"TITEL\s*=\s*(.+)", text)
    if len(titles) > 1:
        raise ConfigError(f"{path} holds {len(titles)} datasets: give one element's dataset in each file")
    if not titles or not text.rstrip().endswith(_END):
        raise ConfigError(f"{path} is no whole dataset (TITEL, …, {_END!r}): copy it anew")
    title = " ".join(titles[0].split())
    found = re.match(r"\S+\s+([A-Z][a-z]?)(?![a-z])", title)
    if found is None or found.group(1) != element:
        raise ConfigError(f"{path} is for another element than {element}: its TITEL is {title!r}: correct `potcars`")
    exchange = re.search(r"LEXCH\s*=\s*(\w+)", text)
    if exchange is None:
        raise ConfigError(f"{path} does not say for which functional it is (LEXCH): take a PAW dataset of VASP")
    return Potcar(
        element=element,
        title=title,
        valence=_number(text, "ZVAL", path),
        enmax=_number(text, "ENMAX", path),
        exchange=exchange.group(1).upper(),
        content=content if content.endswith(b"\n") else content + b"\n",
    )


def _find(folder: Path, dataset: str) -> Path:
    places = [folder / place.format(dataset) for place in _PLACES]
    for path in places:
        for found in (path, path.with_name(path.name + ".gz")):
            if found.is_file():
                return found
        packed = path.with_name(path.name + ".Z")
        if packed.is_file():
            raise ConfigError(f"{packed} is packed by `compress`, which Python cannot read: unpack it (uncompress)")
    near = sorted(p.name for p in folder.glob(f"{dataset.partition('_')[0]}*") if p.is_dir())
    known = f"; there are {', '.join(near)}" if near else ""
    raise ConfigError(
        f"no dataset {dataset} in {folder} (looked for {', '.join(str(p.relative_to(folder)) for p in places)}, also "
        f"with .gz){known}: correct `potcars` of the theory, or `potentials` of the worker's file"
    )


def _number(text: str, name: str, path: Path) -> float:
    found = re.search(rf"\b{name}\s*=\s*(\d+\.?\d*)", text)
    if found is None:
        raise ConfigError(f"{path} does not say its {name}: take a PAW dataset of VASP")
    return float(found.group(1))
