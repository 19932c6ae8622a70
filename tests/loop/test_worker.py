"""The label worker: what it leaves behind when it is stopped."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any, cast

import pytest

from alflow.errors import FailureKind, LabelFailure
from alflow.folder.outputs import find_outputs
from alflow.labelers import Labeler, OutputSettings, RetrySettings
from alflow.ledger import AttemptState, JobState
from alflow.loop import CampaignContext, LabelWorker, SilentReporter, UpkeepPolicy, plain_call, run, upkeep
from alflow.structures import Structure


class Stops:
    """A labeler that is interrupted at its second job, or as soon as the label of the first is stored."""

    def __init__(self, labeler: Any) -> None:
        self.labeler, self.calls = labeler, 0

    def label(self, structure: Structure, directory: Path) -> Any:
        self.calls += 1
        if self.calls == 2:
            raise KeyboardInterrupt
        return self.labeler.label(structure, directory)


class Fails:
    """A labeler that fails in one way."""

    def __init__(self, kind: FailureKind) -> None:
        self.kind = kind

    def label(self, structure: Structure, directory: Path) -> Any:
        directory.mkdir(parents=True)
        (directory / "said.txt").write_text("it went wrong")
        (directory / "WAVECAR").write_bytes(bytes(1000))
        raise LabelFailure(self.kind, "it went wrong")


@pytest.fixture
def queued(small: CampaignContext) -> CampaignContext:
    """A campaign whose first jobs wait."""

    def call(name: str, function: Any) -> dict[str, Any]:
        if name == "label":
            raise KeyboardInterrupt
        return plain_call(name, function)

    with pytest.raises(KeyboardInterrupt):
        run(small, call)
    return small


@pytest.mark.parametrize("after_storing", [False, True])
def test_an_interrupted_worker_gives_its_jobs_back(
    queued: CampaignContext, after_storing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeler: Any = queued.labeler if after_storing else Stops(queued.labeler)
    if after_storing:

        def interrupt(*_args: Any, **_kwargs: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("alflow.loop._outputs.shutil.rmtree", interrupt)
    config = queued.worker.model_copy(update={"batch": 3, "outputs": OutputSettings(labelled="remove")})
    worker = LabelWorker(queued.ledger, config, labelers={queued.theory.id: labeler})
    worker._at_once = 3
    with pytest.raises(KeyboardInterrupt):
        worker.run()
    counts = queued.ledger.queue.counts(queued.campaign_id)
    jobs = queued.ledger.queue.list(queued.campaign_id)
    assert counts[JobState.DONE] == 1
    assert counts[JobState.QUEUED] == len(jobs) - 1
    attempts = [a.state for job in jobs for a in queued.ledger.queue.attempts(job.id)]
    assert attempts == [AttemptState.DONE, AttemptState.RELEASED, AttemptState.RELEASED]
    assert all(job.deaths == 0 for job in jobs)


@pytest.mark.parametrize("kind", [FailureKind.MEMORY, FailureKind.NOT_CONVERGED])
def test_the_worker_file_says_how_often_a_job_is_repeated(queued: CampaignContext, kind: FailureKind) -> None:
    retries = RetrySettings(machine=2, calculation=0, delay_seconds=0.0)
    config = queued.worker.model_copy(update={"retries": retries, "batch": 1})
    jobs = queued.ledger.queue.list(queued.campaign_id)
    worker = LabelWorker(queued.ledger, config, labelers={queued.theory.id: cast("Labeler", Fails(kind))})
    summary = worker.run(max_jobs=3)
    attempts = [job.attempts for job in queued.ledger.queue.list(queued.campaign_id, [JobState.QUARANTINED])]
    if kind.infrastructure:
        assert (summary.retried, summary.failed, attempts) == (2, 1, [3])
    else:
        assert (summary.retried, summary.failed, attempts) == (0, 3, [1, 1, 1])
    assert len(jobs) > 3


@pytest.fixture
def limits(queued: CampaignContext, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, dict[str, int]]]:
    """What is claimed from now on: how many jobs at once, with which slots."""
    seen: list[tuple[int, dict[str, int]]] = []
    claim = queued.ledger.queue.claim

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append((kwargs["limit"], kwargs["slots"]))
        return claim(*args, **kwargs)

    monkeypatch.setattr(queued.ledger.queue, "claim", watched)
    return seen


@pytest.mark.parametrize(("quick", "expected"), [(3600.0, [1, 2, 3, 1]), (0.0, [1] * 7)])
def test_slow_calculations_are_claimed_one_by_one(
    quick: float,
    expected: list[int],
    queued: CampaignContext,
    limits: list[tuple[int, dict[str, int]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("alflow.loop._worker.QUICK_SECONDS", quick)
    config = queued.worker.model_copy(update={"batch": 3})
    LabelWorker(queued.ledger, config, labelers={queued.theory.id: queued.labeler}).run(max_jobs=7)
    assert [limit for limit, _ in limits] == expected


def test_a_worker_holds_no_more_slots_than_it_uses(
    queued: CampaignContext, limits: list[tuple[int, dict[str, int]]]
) -> None:
    for slots in ({"emt": 3}, {"vasp": 3}):
        config = queued.worker.model_copy(update={"slots": slots, "batch": 2})
        LabelWorker(queued.ledger, config, labelers={queued.theory.id: queued.labeler}).run(max_jobs=3)
    assert limits == [*[(1, {"emt": 3})] * 3, (1, {"vasp": 3}), (2, {"vasp": 3})]


@pytest.mark.parametrize(
    ("outputs", "labelled", "failed"),
    [
        ("keep", {"attempt-1/"}, {"WAVECAR", "said.txt"}),
        ("prune", {"attempt-1/"}, {"pruned.json", "said.txt"}),
        ("compress", {"attempt-1.tar.gz"}, {"WAVECAR", "said.txt"}),
        ("remove", set(), {"pruned.json", "said.txt"}),
    ],
)
def test_outputs_are_kept_as_the_worker_file_says(
    queued: CampaignContext, outputs: str, labelled: set[str], failed: set[str]
) -> None:
    config = queued.worker.model_copy(update={"outputs": OutputSettings.model_validate(outputs), "batch": 1})

    def one_job(labeler: Any) -> tuple[int, Path]:
        worker = LabelWorker(queued.ledger, config, labelers={queued.theory.id: labeler})
        before = {job.id: job.attempts for job in queued.ledger.queue.list(queued.campaign_id)}
        worker.run(max_jobs=1)
        [job] = [job for job in queued.ledger.queue.list(queued.campaign_id) if job.attempts > before[job.id]]
        directory = queued.ledger.queue.attempts(job.id)[-1].directory
        assert directory is not None
        return job.id, Path(directory)

    _, place = one_job(queued.labeler)
    there = place.parent.iterdir()
    assert {f"{path.name}/" if path.is_dir() else path.name for path in there} == labelled
    number, place = one_job(Fails(FailureKind.REFUSED))
    assert queued.ledger.queue.get(number).state is JobState.FAILED
    found = find_outputs(place)
    assert found is not None, "what explains a failure is never removed"
    if outputs == "compress":
        with tarfile.open(found) as tar:
            assert set(tar.getnames()) == {"attempt-1", *(f"attempt-1/{name}" for name in failed)}
        assert upkeep(queued.ledger, UpkeepPolicy(keep_outputs_days=0)).outputs == 1
        assert found.exists(), "upkeep lets go of labelled ones only"
    else:
        assert {path.name for path in found.iterdir()} == failed
    assert f"Its outputs are in {found}." in str(queued.ledger.why(queued.ledger.queue.candidates_of(number)[0]))


def test_large_directories_are_pruned_before_they_are_compressed(queued: CampaignContext) -> None:
    outputs = OutputSettings(failed="compress", compress_up_to_gb=0.0)
    config = queued.worker.model_copy(update={"outputs": outputs})
    labelers = {queued.theory.id: cast("Labeler", Fails(FailureKind.REFUSED))}
    LabelWorker(queued.ledger, config, labelers=labelers).run(max_jobs=1)
    [job] = queued.ledger.queue.list(queued.campaign_id, [JobState.FAILED])
    [attempt] = queued.ledger.queue.attempts(job.id)
    found = find_outputs(str(attempt.directory))
    assert found is not None
    with tarfile.open(found) as tar:
        assert set(tar.getnames()) == {"attempt-1", "attempt-1/pruned.json", "attempt-1/said.txt"}


def test_a_full_disk_leaves_outputs_as_they_are(queued: CampaignContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_directory: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alflow.loop._outputs.compress", full)
    notes: list[str] = []
    report = SilentReporter()
    monkeypatch.setattr(report, "note", notes.append)
    config = queued.worker.model_copy(update={"outputs": OutputSettings.model_validate("compress"), "batch": 1})
    worker = LabelWorker(queued.ledger, config, labelers={queued.theory.id: queued.labeler}, report=report)
    assert worker.run(max_jobs=1).labelled == 1
    [note] = notes
    assert "stays as it is, for `outputs: compress` failed: [Errno 28]" in note
    assert Path(note.split(" stays")[0]).is_dir()
