"""What is shipped: symlinks, versions, dependencies and licences, and the built packages."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import alflow

FORBIDDEN = {
    "les": "CC BY-NC and a patent notice",
    "average-minimum-distance": "CC BY-NC-SA",
    "crystal-toolkit": "breaks with current pymatgen",
    "material-hasher": "not on the index",
    "torch-sim-atomistic": "its current API needs Python 3.12",
    "torch-sim": "its current API needs Python 3.12",
}
COPYLEFT_PROGRAMS = {"gpaw"}  # run by a labeler as a code of its own, never imported by the library


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]  # type: ignore[no-any-return]


def requirements(project: dict[str, Any], *extras: str) -> list[Requirement]:
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize(("link", "target"), [("flows", "../flows"), ("migrations", "../alembic")])
def test_symlinks_are_committed_and_resolve(root: Path, link: str, target: str) -> None:
    path = root / "alflow" / link
    assert path.is_symlink()
    assert str(path.readlink()) == target
    assert path.resolve() == (root / Path(target).name).resolve()
    assert path.is_dir()
    if (root / ".git").exists():
        entry = subprocess.run(
            ["git", "ls-files", "-s", f"alflow/{link}"], cwd=root, capture_output=True, text=True, check=True
        ).stdout
        assert entry.startswith("120000 "), f"alflow/{link} is not committed as a symlink: {entry!r}"


def test_alembic_folder_does_not_shadow_the_library(root: Path) -> None:
    assert not (root / "alembic" / "__init__.py").exists(), "python -m alembic would import this folder"


def test_versions_agree(project: dict[str, Any]) -> None:
    assert alflow.__version__ == project["version"] == importlib.metadata.version("alflow")


def test_type_information_is_shipped(root: Path) -> None:
    assert (root / "alflow" / "py.typed").is_file()


def test_no_forbidden_dependency(project: dict[str, Any], root: Path) -> None:
    named = {canonicalize_name(r.name) for r in requirements(project, *project["optional-dependencies"])}
    pinned = {canonicalize_name(name) for name, _ in pins(root)}
    found = {name: why for name, why in FORBIDDEN.items() if name in named | pinned}
    assert not found


@pytest.mark.parametrize(
    ("name", "works", "breaks"), [("fastapi", "0.150.0", "0.151.0"), ("sqlalchemy", "2.0.58", "2.1.9")]
)
def test_bounds_keep_out_what_breaks_the_prefect_server(
    project: dict[str, Any], name: str, works: str, breaks: str
) -> None:
    """``pip check`` is clean with these versions, and the server does not start, or no schedule fires."""
    bound = next(r.specifier for r in requirements(project) if r.name == name)
    assert works in bound
    assert breaks not in bound


def licence(distribution: str) -> str:
    metadata = importlib.metadata.metadata(distribution)
    classifiers = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License")]
    stated = [(text or "")[:200] for key in ("License-Expression", "License") for text in metadata.get_all(key) or []]
    return " | ".join([*stated, *classifiers])


def test_licences_of_what_we_depend_on_permit_any_use(project: dict[str, Any]) -> None:
    for requirement in requirements(project, *project["optional-dependencies"]):
        if canonicalize_name(requirement.name) in COPYLEFT_PROGRAMS:
            continue
        try:
            text = licence(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that is not installed here
        assert not re.search(r"non-?commercial|CC[ -]BY-NC|\bBY-NC\b", text, re.IGNORECASE), requirement.name
        strong = re.search(r"(?<!L)\bA?GPL|GNU (Affero )?General Public", text)
        assert not (strong and "Lesser" not in text), f"{requirement.name}: {text}"


def pins(root: Path) -> list[tuple[str, str]]:
    lines = (root / "constraints.txt").read_text().splitlines()
    return [tuple(line.split("==")) for line in lines if line and not line.startswith("#")]  # type: ignore[misc]


def test_constraints_pin_everything_that_the_targets_install(project: dict[str, Any], root: Path) -> None:
    pinned = {canonicalize_name(name): version for name, version in pins(root)}
    assert "alflow" not in pinned
    assert all("+" not in version for version in pinned.values()), "a local version exists on no public index"
    for requirement in requirements(project, "test", "dev", "docs"):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned"
        assert version in requirement.specifier, f"{requirement.name}=={version} is outside {requirement.specifier}"


def closure(names: Iterator[str] | list[str]) -> set[str]:
    """Return every distribution that installing these brings in, extras left out."""
    seen: set[str] = set()
    todo = list(names)
    while todo:
        name = canonicalize_name(todo.pop())
        if name in seen:
            continue
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        seen.add(name)
        for line in lines:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
    return seen


def test_base_install_stays_small(project: dict[str, Any]) -> None:
    own = closure([r.name for r in requirements(project)])
    beyond = own - closure(["torch"]) - closure(["prefect"])
    assert len(beyond) <= 60, sorted(beyond)


@pytest.fixture(scope="module")
def packages(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build sdist and, from it, the wheel, out of what a clone would hold."""
    clone = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source, target = root / name, clone / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    output = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(output), str(clone)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return output


def expected_modules(root: Path) -> set[str]:
    flows = {f"alflow/flows/{p.relative_to(root / 'flows')}" for p in (root / "flows").rglob("*.py")}
    migrations = {f"alflow/migrations/{p.relative_to(root / 'alembic')}" for p in (root / "alembic").rglob("*.py")}
    assert flows, "flows/ holds no module"
    assert migrations, "alembic/ holds no migration"
    return flows | migrations | {"alflow/py.typed", "alflow/report/templates/report.html.j2"}


@pytest.mark.integration
def test_wheel_and_sdist_hold_flows_and_migrations(packages: Path, root: Path) -> None:
    with zipfile.ZipFile(next(packages.glob("*.whl"))) as wheel:
        in_wheel = set(wheel.namelist())
    with tarfile.open(next(packages.glob("*.tar.gz"))) as sdist:
        in_sdist = {name.partition("/")[2] for name in sdist.getnames()}
    assert not expected_modules(root) - in_wheel
    assert not {name for name in in_wheel if name.startswith("tests/")}
    assert {"alflow/migrations/script.py.mako"} <= in_wheel
    assert {"LICENSE", "README.md", "pyproject.toml"} <= in_sdist
    # In an sdist the symlinks may be links or copies; the wheel above was built from it, so either serves.
    assert any(name.startswith(("alflow/flows", "flows/")) for name in in_sdist)


@pytest.mark.integration
def test_installed_wheel_imports_flows_and_migrations(packages: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    wheel = next(packages.glob("*.whl"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)], check=True
    )
    code = (
        "import importlib, pathlib, alflow, alflow.flows, alflow.migrations\n"
        "print(alflow.__file__)\n"
        "print(alflow.flows.__file__)\n"
        "print(list(alflow.migrations.__path__)[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    places = [Path(line) for line in done.stdout.splitlines()[-3:]]
    assert all(place.is_relative_to(site) for place in places), places
    assert (places[2] / "env.py").is_file()
    assert list((places[2] / "versions").glob("*.py"))
