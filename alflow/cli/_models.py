"""``train`` and ``eval``: committees from and against labelled structures, without a ledger."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alflow.cli._options import ForceOption, JsonOption, QuietOption, complete_campaign, require_new_file
from alflow.cli._output import Column, duration, plural, print_json, print_rows
from alflow.errors import ConfigError, StructureError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from alflow.cli._metrics import KindMetrics, Metrics
    from alflow.potentials import (
        CommitteeSpec,
        ErrorSummary,
        MaceSpec,
        Targets,
        TrainingProgress,
        TrainingReport,
        TrainingSpec,
    )

DataFiles = Annotated[
    list[Path],
    typer.Argument(
        metavar="DATA...",
        help="Labelled structures (extxyz, ASE database): REF_energy, REF_forces, REF_stress, or results.",
        show_default=False,
    ),
]
KeyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="LABEL=NAME",
        help="Name of a label in the files: energy=dft_energy; also forces, stress, virial.",
        show_default=False,
    ),
]


def train(
    data: DataFiles,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MODEL", help="Where to write the committee.", show_default=False)
    ],
    settings: Annotated[
        Path | None,
        typer.Option(
            "--campaign",
            "-C",
            metavar="FILE",
            help="Take committee, training and targets from a campaign file.",
            show_default=False,
            autocompletion=complete_campaign,
        ),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            "--initial",
            "-i",
            metavar="MODEL",
            help="Start from this committee; its shape is taken over, unless --campaign gives the same.",
            show_default=False,
        ),
    ] = None,
    members: Annotated[
        int | None, typer.Option("--members", "-k", metavar="N", help="Number of members.", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", "-e", metavar="N", help="Largest number of epochs.", show_default=False)
    ] = None,
    cpu_seconds: Annotated[
        float | None,
        typer.Option(
            "--cpu-seconds", "-t", metavar="SECONDS", help="CPU time for the training, s.", show_default=False
        ),
    ] = None,
    key: KeyOption = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of the random numbers.")] = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a committee on labelled structures.

    Interrupted, the same command continues where it was.
    """
    from alflow.cli._examples import labels_text, parse_keys, read_examples, without_copies
    from alflow.cli._reporter import ConsoleReporter
    from alflow.cli._training_folder import TrainingFolder
    from alflow.potentials import compute_threads, load_committee, potential_kind, summarise_labels

    require_new_file(output, force=force)
    keys = parse_keys(key or ())
    earlier = None if initial is None else load_committee(initial)
    spec, training, targets = _training_settings(
        settings,
        members=members,
        epochs=epochs,
        cpu_seconds=cpu_seconds,
        initial=None if earlier is None else earlier.spec,
    )
    if earlier is not None:
        _require_same_shape(initial, earlier.spec, spec)
    threads = contextlib.nullcontext() if settings is None else compute_threads(training.threads)
    with ConsoleReporter(quiet=quiet) as report, threads:
        report.step("read")
        read, n_copies = without_copies(read_examples(data, keys))
        examples, summary = read.labelled, summarise_labels(read.labelled)
        report.step("read", plural(len(examples), "labelled structure"))
        if n_copies:
            report.note(f"{plural(n_copies, 'copy', 'copies')} of others left out")
        for doubt in summary.doubts:
            report.note(doubt)
        folder = TrainingFolder(output, examples, (spec, training, targets), seed=seed, initial=initial)
        if folder.open():
            report.note(f"continuing from {folder.path}")
        report.step("train")
        committee = potential_kind(spec.kind).train(
            examples,
            spec,
            training,
            targets=targets,
            initial=earlier,
            seed=seed,
            checkpoint_dir=folder.path,
            progress=lambda p: report.progress("train", *_training_progress(p)),
            directory=Path.cwd() if settings is None else settings.resolve().parent,
        )
        record = committee.report
        assert record is not None, "a committee that was just trained has its record"
        report.step("train", plural(record.epochs, "epoch"))
        committee.save(output)
        folder.remove()
        report.done(f"wrote {output}; look at it with `alflow eval {output} TEST`")
    if as_json:
        labels = {**asdict(summary), "not_read": sorted(read.not_read)}
        print_json({"model": output, "labels": labels, **training_summary(record)})
    else:
        rows = [{"what": "labels", "value": labels_text(summary, read.not_read)}, *_summary_rows(record)]
        print_rows([Column(key="what", label=""), Column(key="value", label="", elastic=True)], rows)


def evaluate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A committee that `alflow train` or `alflow committee save` wrote.")
    ],
    data: DataFiles,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a committee with labelled structures.

    Prints the errors of energy, force and stress, and how well the committee knows them.
    """
    from alflow.cli._console import working
    from alflow.cli._examples import parse_keys, read_examples
    from alflow.cli._metrics import measure
    from alflow.potentials import load_committee

    committee = load_committee(model)
    with working("reading"):
        examples = read_examples(data, parse_keys(key or ())).labelled
    strange = {e for example in examples for e in example.structure.elements} - set(committee.elements)
    if strange:
        raise StructureError(
            f"{model} knows {', '.join(committee.elements)} but the data hold {', '.join(sorted(strange))}: "
            "leave those structures out or train with them"
        )
    wants_stress = any(example.properties.stress is not None for example in examples)
    with working(f"predicting {plural(len(examples), 'structure')}"):
        prediction = committee.predict([example.structure for example in examples], stress=wants_stress)
    metrics = measure(prediction, [example.properties for example in examples])
    if as_json:
        print_json(metrics)
    else:
        _print_metrics(metrics)


def _training_settings(
    path: Path | None,
    *,
    members: int | None,
    epochs: int | None,
    cpu_seconds: float | None,
    initial: BaseModel | None,
) -> tuple[CommitteeSpec | MaceSpec, TrainingSpec, Targets]:
    from pydantic import ValidationError

    from alflow.potentials import CommitteeSpec, Targets, TrainingSpec

    spec: Any = initial or CommitteeSpec()
    training, targets = TrainingSpec(), Targets()
    if path is not None:
        from alflow.config import load_campaign

        config = load_campaign(path).config
        spec, training, targets = config.committee, config.training, config.targets
    changes: dict[str, Any] = {"max_epochs": epochs, "cpu_seconds": cpu_seconds}
    try:
        spec = _changed(spec, {"n_members": members})
        training = _changed(training, changes)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"{problem['loc'][0]}: {problem['msg'].lower()}, not {problem['input']}") from error
    return spec, training, targets


def _require_same_shape(path: Path | None, initial: BaseModel, spec: BaseModel) -> None:
    """Refuse to start from a committee that training would have to leave aside."""
    from alflow.potentials import changed_fields

    names = [name for name in changed_fields(initial, spec) if name != "dtype"]
    if names:
        names = ["kind"] if "kind" in names else names  # two kinds have few settings in common
        differ = ", ".join(f"{name} {getattr(initial, name)} (wanted: {getattr(spec, name)})" for name in names)
        raise ConfigError(
            f"training cannot start from {path}, which has {differ}: let settings agree, or leave --initial out"
        )


def _changed(settings: Any, changes: dict[str, Any]) -> Any:
    given = {key: value for key, value in changes.items() if value is not None}
    return type(settings).model_validate({**settings.model_dump(), **given}) if given else settings


def _training_progress(progress: TrainingProgress) -> tuple[int, int | None, str]:
    """How much is done, of how much, and the loss so far, as the reporter takes them."""
    loss = progress.loss if progress.held_out_loss is None else progress.held_out_loss
    text = f"{'loss' if progress.held_out_loss is None else 'held-out loss'} {loss:.3g}"
    if progress.max_epochs is not None:
        return progress.epoch, progress.max_epochs, text
    return round(100 * progress.fraction), 100, f"%, epoch {progress.epoch}, {text}"


def training_summary(report: TrainingReport) -> dict[str, Any]:
    """Pick from a training report what a person wants to see."""
    return {
        "structures": report.n_train,
        "held_out": len(report.held_out),
        "epochs": report.epochs,
        "cpu_seconds": report.cpu_seconds,
        "warm_start": report.warm_start or None,
        "train": report.train,
        "validation": report.validation,
        "reference_energies": report.reference_energies,
    }


def _summary_rows(report: TrainingReport) -> list[dict[str, Any]]:
    rows = [
        {"what": "structures", "value": f"{report.n_train}, of which {len(report.held_out)} held out"},
        {"what": "training", "value": f"{report.epochs} epochs, {duration(report.cpu_seconds)} of CPU time"},
        {"what": "errors on these", "value": _errors_text(report.train)},
    ]
    if report.warm_start:
        rows.insert(2, {"what": "start", "value": report.warm_start})
    if report.validation is not None:
        rows.append({"what": "errors on held-out", "value": _errors_text(report.validation)})
    return rows


def _errors_text(errors: ErrorSummary) -> str:
    parts = [f"energy {1e3 * errors.energy_mae:.2f} meV/atom"]
    if errors.force_mae is not None:
        parts.append(f"force {1e3 * errors.force_mae:.1f} meV/Å")
    if errors.stress_mae is not None:
        parts.append(f"stress {1e3 * errors.stress_mae:.2f} meV/Å³")
    return ", ".join(parts) + " (mean absolute)"


def _print_metrics(metrics: Metrics) -> None:
    columns = [
        Column(key="kind", label=""),
        Column(key="n", label="values"),
        Column(key="mae", label="MAE", digits=2),
        Column(key="rmse", label="RMSE", digits=2),
        Column(key="sigma", label="mean σ" if metrics.calibrated else "mean spread", digits=2),
        Column(key="unit", label=""),
        Column(key="coverage90", label="in 90 %", digits=2),
        Column(key="spearman", label="rank corr.", digits=2),
    ]
    if not metrics.calibrated:
        columns = [c for c in columns if c.key != "coverage90"]
    if metrics.n_members < 2:
        columns = [c for c in columns if c.key not in {"sigma", "spearman"}]
    rows = [
        _metric_row("energy", metrics.energy, 1e3, "meV/atom"),
        _metric_row("force", metrics.force, 1e3, "meV/Å"),
        _metric_row("stress", metrics.stress, 1e3, "meV/Å³"),
    ]
    title = (
        f"{plural(metrics.n_members, 'member')} on {plural(metrics.n_structures, 'structure')}, {metrics.n_atoms} atoms"
    )
    if metrics.u_above_one is not None:
        title += f"; u > 1 for {100 * metrics.u_above_one:.0f} %"
    if metrics.far_from_data is not None:
        title += f"; {100 * metrics.far_from_data:.0f} % far from the training data"
    if metrics.n_members > 1 and not metrics.calibrated:
        title += "; spreads are not calibrated, only a campaign does that"
    print_rows(columns, [row for row in rows if row is not None], title=title)


def _metric_row(kind: str, metrics: KindMetrics | None, scale: float, unit: str) -> dict[str, Any] | None:
    if metrics is None:
        return None
    return {
        "kind": kind,
        "n": metrics.n,
        "mae": scale * metrics.mae,
        "rmse": scale * metrics.rmse,
        "sigma": None if metrics.sigma is None else scale * metrics.sigma,
        "unit": unit,
        "coverage90": metrics.coverage90,
        "spearman": metrics.spearman,
    }
