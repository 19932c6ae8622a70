"""Where compiled kernels come from: compilers, caches, the switch, and what happens without them."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from alflow import native
from alflow.errors import UserError
from alflow.native import KernelsUnavailableError, cache_folder, find_compiler
from alflow.potentials import CommitteeSpec, TrainingSpec, train_committee
from alflow.potentials import _engine as engine_module
from alflow.potentials._engine import (
    KernelEngine,
    PlainEngine,
    choose_engine,
    compare_engines,
    kernel_state,
    why_no_kernels,
)
from alflow.potentials._kernel_network import kernel_shape
from alflow.potentials._network import NetworkOutput
from alflow.potentials.kernels import KernelShape, load_kernels
from tests.potentials.test_kernels import Case

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler here: plain torch does the work")
SHAPE = KernelShape(l_max=2, l_product=1, l_hidden=1, n_radial=3, single=False)
F64 = torch.float64


@pytest.fixture
def forget() -> Iterator[None]:
    """What a process remembers of its compiler is forgotten before and after."""
    caches = (
        load_kernels,
        native.load_library,
        native._version,
        native._private_folder,
        why_no_kernels,
        engine_module._say_once,
    )
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.usefixtures("forget")
def test_without_a_compiler_plain_torch_works_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, labelled: list[Atoms]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        committee = train_committee(labelled[:4], CommitteeSpec(channels=4), TrainingSpec(max_epochs=1))
        committee.predict(labelled[:2])
    assert isinstance(committee.core.engine, PlainEngine)
    (record,) = caplog.records
    assert record.message == (
        "training and prediction use plain torch, several times slower: "
        "no C++ compiler was found (install g++, or name a compiler in the variable CXX)"
    )


@pytest.mark.usefixtures("forget")
def test_a_compiler_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken-c++"
    broken.write_text("#!/bin/sh\necho 'kernels.cpp:1: error: out of cheese' >&2\nexit 1\n")
    broken.chmod(0o700)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(KernelsUnavailableError, match=r"broken-c\+\+ failed: .*out of cheese"):
        load_kernels(SHAPE)
    assert "out of cheese" in (why_no_kernels(CommitteeSpec(), torch.float32) or "")
    assert not list((tmp_path / "alflow" / "kernels").iterdir())


@needs_compiler
@pytest.mark.usefixtures("forget")
def test_a_wrong_name_and_a_full_disk_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(KernelsUnavailableError, match="No space left on device"):
            load_kernels(SHAPE)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(KernelsUnavailableError, match="the variable CXX names 'no-such-compiler', which is no program"):
        load_kernels(SHAPE)


@needs_compiler
def test_what_is_no_number_does_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = KernelEngine.evaluate

    def spoilt(self: KernelEngine, *arguments: Any, **more: Any) -> NetworkOutput:
        out = evaluate(self, *arguments, **more)
        return replace(out, virial=None if out.virial is None else out.virial * float("nan"))

    monkeypatch.setattr(KernelEngine, "evaluate", spoilt)
    assert np.isnan(compare_engines(CommitteeSpec(channels=4), F64))


@needs_compiler
@pytest.mark.usefixtures("forget")
def test_kernels_that_disagree_are_dropped(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(engine_module, "compare_engines", lambda *_: 0.5)
    case = Case.of([bulk("Ni")], CommitteeSpec(channels=4), [28])
    with caplog.at_level(logging.WARNING):
        chosen = choose_engine(case.network, case.numbers, torch.float32)
    assert isinstance(chosen, PlainEngine)
    assert "off by 0.5 from the plain network" in caplog.text


@needs_compiler
def test_agreement_is_measured_not_assumed() -> None:
    spec = CommitteeSpec(channels=8)
    assert 0 < compare_engines(spec, torch.float32) < 1e-5
    assert compare_engines(spec, F64) < 1e-12


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="instruction sets of x86-64")
@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize(
    ("processor", "needs", "lanes", "removed"),
    [
        ("x86-64", set(), 2, ""),
        ("x86-64-v3", {"avx2", "fma", "bmi2"}, 4, ""),
        ("x86-64-v3", {"avx2", "fma", "bmi2"}, 4, "#define SHUFFLES"),  # g++ before its version 12
    ],
    ids=["SSE2", "AVX2", "AVX2, older compiler"],
)
def test_other_processors_and_older_compilers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, processor: str, needs: set[str], lanes: int, removed: str
) -> None:
    """Vectors are as wide as the processor's, and sums of their lanes are written in two ways: all agree."""
    if not needs <= set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split()):
        pytest.skip(f"this processor is less than {processor}")
    wrapper = tmp_path / "c++"
    wrapper.write_text(
        f"#!{sys.executable}\n"
        "import os, pathlib, sys\n"
        "for source in map(pathlib.Path, sys.argv):\n"
        "    if source.suffix == '.cpp':\n"
        "        text = source.read_text()\n"
        f"        assert {removed!r} in text\n"
        f"        source.write_text(text.replace({removed!r}, ''))\n"
        f"os.execv({find_compiler()!r}, ['c++', *sys.argv[1:], '-march={processor}'])\n",
        encoding="utf-8",
    )
    wrapper.chmod(0o700)
    monkeypatch.setenv("CXX", str(wrapper))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec = CommitteeSpec(channels=5)
    assert load_kernels(kernel_shape(spec, F64)).vector_length() == lanes
    assert compare_engines(spec, F64) < 1e-12


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case.of([bulk("Ni")], CommitteeSpec(channels=4), [28])
    monkeypatch.setenv("ALFLOW_KERNELS", "off")
    assert isinstance(choose_engine(case.network, case.numbers, F64), PlainEngine)
    monkeypatch.setenv("ALFLOW_KERNELS", "on")
    for ask in (lambda: choose_engine(case.network, case.numbers, F64), lambda: kernel_state(CommitteeSpec())):
        with pytest.raises(UserError, match="ALFLOW_KERNELS is 'on'; write auto"):
            ask()


@needs_compiler
@pytest.mark.usefixtures("forget")
def test_processes_share_the_cache_and_a_damaged_file_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = (
        "from alflow.potentials.kernels import KernelShape, load_kernels\n"
        f"print(load_kernels({SHAPE!r}).vector_length())"
    )

    def start(_: int) -> str:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    with ThreadPoolExecutor(3) as pool:
        answers = set(pool.map(start, range(3)))
    assert len(answers) == 1
    (library,) = cache_folder().iterdir()
    library.write_bytes(b"not a library")
    assert str(load_kernels(SHAPE).vector_length()) in answers
    assert library.stat().st_size > 10_000
    assert list(cache_folder().iterdir()) == [library]


@pytest.mark.usefixtures("forget")
def test_a_cache_that_cannot_be_written_is_replaced_by_a_private_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    folder = cache_folder()
    assert folder.is_dir()
    assert folder.stat().st_mode & 0o077 == 0
    shutil.rmtree(folder)


@needs_compiler
@pytest.mark.usefixtures("forget")
def test_a_cache_that_can_only_be_read_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_kernels(SHAPE)
    for cached in (load_kernels, native.load_library):
        cached.cache_clear()

    def refuse(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(native, "cache_folder", lambda: tmp_path / "private")  # what it is where nothing can be written
    monkeypatch.setattr(native, "_compile", refuse)
    assert load_kernels(SHAPE).vector_length() > 0


def test_a_private_cache_goes_with_its_process(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    program = (
        "import os; from alflow.native import cache_folder\n"
        "folder = cache_folder(); (folder / 'x.so').write_text('')\n"
        "if os.fork() == 0: raise SystemExit  # a child leaves it alone\n"
        "os.wait(); assert folder.is_dir(); print(folder)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(blocked)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert not Path(done.stdout.strip()).exists()
