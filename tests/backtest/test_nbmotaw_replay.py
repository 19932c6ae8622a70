"""The example on real DFT labels, with a budget that shows only that every part fits together."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from alflow.backtest import BacktestResult

ROOT = Path(__file__).parents[2]
LABELS = ROOT.parent / "shared" / "data" / "nbmotaw" / "maml_NbMoTaW.extxyz.gz"


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nbmotaw_replay", ROOT / "examples" / "nbmotaw-replay" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not LABELS.exists(), reason="needs shared/data/nbmotaw beside the checkout: real DFT labels")
def test_the_example_gives_learning_curves_on_real_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    torch.set_num_threads(1)
    small = "--initial 6 --batch 3 --budget 9 --seeds 1 --max-pool 30 --max-test 8 --channels 4 --steps 20"
    result = example().main([str(LABELS), "--output", str(tmp_path), *small.split()])
    assert isinstance(result, BacktestResult)
    for strategy in ("default", "random"):
        curve = result.of(strategy)[0]
        assert [point.n_labels for point in curve.points] == [6, 9]
        assert all(point.force_mae is not None and point.force_mae > 0 for point in curve.points)
        assert {"energy", "force"} == set(curve.points[-1].coverage), "the file has no stress labels"
    assert (tmp_path / "learning-curve.png").stat().st_size > 10_000
    assert BacktestResult.from_json((tmp_path / "result.json").read_text()) == result
    printed = capsys.readouterr()
    assert "default" in printed.out
    assert "meV/atom" in printed.err
