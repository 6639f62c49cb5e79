"""`tvmtiny evaluate`: how good a compiled model is on a data set, and what it takes, on one or several targets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmtiny.cli import console
from tvmtiny.errors import ResultMismatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tvmtiny.artifact import Artifact
    from tvmtiny.evaluate import Dataset, Evaluation, Metrics
    from tvmtiny.evaluate.baseline import Baseline
    from tvmtiny.evaluate.floating import FloatOutputs
    from tvmtiny.evaluate.report import Row


def command(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="What `tvmtiny compile` wrote.", exists=True, file_okay=False),
    ],
    data_file: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="FILE.npz|FILE.tsv",
            help="NPZ file of the model's inputs, or of recordings, with the true classes; or lines LABEL<TAB>TEXT.",
            exists=True,
            dir_okay=False,
        ),
    ],
    where: console.RunnerOption = "qemu",
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target", help="Board whose core and memory count; may be repeated.", show_default="the model's"
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME[:OUTPUT]|FILE.py:FUNCTION",
            help="accuracy, top3, token_accuracy, span_f1, or a function of yours; may be repeated.",
            show_default="as the outputs are",
        ),
    ] = None,
    float_model: Annotated[
        str | None,
        typer.Option(
            "--float",
            metavar="MODEL",
            help="The model that was compiled, to compare with.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Only the first N samples.", min=1, show_default=False)
    ] = None,
    no_reference: Annotated[
        bool,
        typer.Option(
            "--no-reference", help="Leave out the comparison of every byte with the integer reference."
        ),
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(help="Write the figures to this file, for --check.", dir_okay=False, show_default=False),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="BASELINE",
            help="Exit status 1 when a figure is worse than in this file by more than its tolerance.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Emulators at once; 0: one for each processor.", min=0)] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds until a run counts as hung.", min=1)] = 600,
    as_json: console.JsonOption = False,
) -> None:
    """Measure accuracy, latency, memory and energy of a compiled model over a data set."""
    from tvmtiny.artifact import Artifact
    from tvmtiny.cli import evaluate_tables as tables
    from tvmtiny.evaluate import baseline as baselines
    from tvmtiny.evaluate import load_dataset, metrics_of
    from tvmtiny.evaluate.report import report, row

    artifact = Artifact.load(directory)
    baseline = baselines.load(check) if check else None
    data = load_dataset(artifact, data_file).limited(limit)
    if baseline:
        baselines.check_data(baseline, data)  # before anything is emulated
    if save is not None and save.exists():
        baselines.load(save)  # another file is not replaced
    wanted = metrics_of(artifact, data, metrics or ())
    names = targets or _targets(artifact, baseline, where)
    with console.progress("loading") as update:
        found = []
        for name in names:
            update(f"running {len(data)} samples on {where}, {name}")
            found.append(_evaluate(artifact, data, wanted, where, name, jobs, timeout))
        expected = None
        if not no_reference:
            update("computing the integer reference")
            expected = _expected(artifact, found[0])
        real, real_report = None, None
        if float_model is not None:
            update("running the float model")
            real, real_report = _float(artifact, data, found[0], float_model, wanted)
    rows = [row(item, real, expected) for item in found]
    changes = baselines.compare(baseline, rows, data) if baseline else []
    if as_json:
        contents = report(data, found[0].tokens, rows, real_report)
        console.show_json({**contents, "changes": [change.to_json() for change in changes]})
    else:
        tables.show(data, rows, real_report)
        if baseline:
            tables.show_changes(changes, baseline.compiler, _compiler(where))
    _judge(rows, changes)
    if save is not None:  # figures that were judged good
        baselines.save(save, rows, data, _compiler(where))


def _targets(artifact: Artifact, baseline: Baseline | None, where: str) -> list[str]:
    """Those of the baseline, else the model's own."""
    places = baseline.rows if baseline else ()
    found = [target for name, target, on in places if name == artifact.name and on == where]
    return found or [artifact.target]


def _evaluate(
    artifact: Artifact, data: Dataset, metrics: Metrics, on: str, target: str, jobs: int, timeout_s: float
) -> Evaluation:
    from tvmtiny.evaluate import evaluate

    return evaluate(artifact, data, metrics, on=on, target=target, jobs=jobs, timeout_s=timeout_s)


def _expected(artifact: Artifact, found: Evaluation) -> list[dict[str, Any]]:
    from tvmtiny.verify import expected_outputs

    return expected_outputs(artifact, found.samples)


def _float(
    artifact: Artifact, data: Dataset, found: Evaluation, model: str, metrics: Metrics
) -> tuple[FloatOutputs, dict[str, Any]]:
    """The float model's outputs, and what is reported of them."""
    from tvmtiny.evaluate.floating import float_outputs, real_inputs
    from tvmtiny.frontend.data import LENGTH_KEY

    inputs = real_inputs(artifact, data, found.samples)
    real = float_outputs(artifact, model, inputs, found.n_tokens)
    values = metrics(real.outputs, {**data.targets, LENGTH_KEY: found.n_tokens})
    return real, {"model": model, "engine": real.engine, "metrics": values}


def _compiler(where: str) -> str | None:
    """The C compiler for whose code the figures hold; None on the host, whose figures do not depend on it."""
    from tvmtiny.bench.session import c_compiler

    return None if where == "host" else c_compiler()


def _judge(rows: Sequence[Row], changes: Sequence[Any]) -> None:
    """Raise what ends the command with exit status 1."""
    from tvmtiny.evaluate.baseline import RegressionError

    for item in rows:
        if item.bit_exact is not None and item.bit_exact < 1:
            raise ResultMismatch(
                f"{item.found.artifact.name} on {item.found.target.name}: {100 * (1 - item.bit_exact):.2f} % of the "
                "samples have other bytes than the integer reference gives.",
                "This is a defect of tvmtiny or of the C compiler: please report it with the model.",
            )
    worse = [change for change in changes if change.regressed]
    if worse:
        raise RegressionError(
            f"{len(worse)} figure{'s' * (len(worse) > 1)} got worse than the baseline tolerates: "
            f"{', '.join(f'{change.figure.name} on {change.place[1]}' for change in worse)}.",
            "If that is meant, write a new baseline with --save.",
        )
