"""`tvmtiny run`: build a compiled model, run it, compare every byte with the integer reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmtiny.cli import console
from tvmtiny.errors import ResultMismatch, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from tvmtiny.artifact import Artifact
    from tvmtiny.cli.enrolment import Examples, Match
    from tvmtiny.cli.figures import Figures
    from tvmtiny.cli.predictions import Prediction, Truth
    from tvmtiny.runner import RunResult, Sample
    from tvmtiny.target import Target


Outputs = list[dict[str, "np.ndarray"]]


def first_difference(found: Outputs, expected: Sequence[dict[str, np.ndarray]]) -> str:
    """Describe the first element that differs and count the rest; empty when all bytes are equal."""
    import numpy as np

    differing, first = 0, ""
    for sample, (have, want) in enumerate(zip(found, expected, strict=True)):
        for name, reference in want.items():
            values = have[name].reshape(reference.shape)
            wrong = np.flatnonzero(values != reference)
            differing += len(wrong)
            if len(wrong) and not first:
                at = int(wrong[0])
                got, must = values.flat[at], reference.flat[at]
                first = f"sample {sample}, output {name}, element {at}: {got} instead of {must}"
    return f"{differing} values differ from the integer reference; first {first}" if differing else ""


def _place(where: str, target: Target) -> str:
    """Name what computed the outputs, for people."""
    if where == "host":
        return "this computer"
    if where.startswith("serial:"):
        return f"the device on {where.partition(':')[2]}"
    if where != "qemu":
        return where
    emulator = target.emulator()
    core = emulator.cpu.replace("cortex-m", "Cortex-M")
    return f"an emulated {core} (QEMU {emulator.qemu_machine})"


def _check_status(artifact: Artifact, status: Sequence[int]) -> None:
    """Refuse a run of which the model itself refused a sample."""
    for sample, value in enumerate(status):
        if value != 0:
            raise UserError(
                f"{artifact.name} refused sample {sample} with status {value}.",
                f"See enum {artifact.name}_status in {artifact.directory / artifact.name}.h for its meaning.",
            )


def _report(
    artifact: Artifact, where: str, figures: Figures, rows: Sequence[Prediction | Match], outputs: Outputs
) -> dict[str, Any]:
    import dataclasses

    from tvmtiny.cli import predictions

    plain = [{name: values.tolist() for name, values in output.items()} for output in outputs]
    details = [dataclasses.asdict(row) for row in rows] or [{} for _ in plain]
    return {
        "name": artifact.name,
        "target": artifact.target,
        "on": where,
        "directory": artifact.directory,
        "samples": len(outputs),
        "accuracy": predictions.accuracy(rows),
        **figures.to_json(),
        "rows": [{**detail, "outputs": values} for detail, values in zip(details, plain, strict=True)],
    }


def _show(
    artifact: Artifact, where: str, figures: Figures, rows: Sequence[Prediction | Match], target: Target
) -> None:
    from tvmtiny.cli import figures as figures_of
    from tvmtiny.cli import predictions

    if rows:
        console.show(predictions.table(rows, f"Computed on {_place(where, target)}"))
        if len(rows) > predictions.ROWS_SHOWN:
            console.show(f"... and {len(rows) - predictions.ROWS_SHOWN} more samples (--json lists all)\n")
    share = predictions.accuracy(rows)
    if share is not None:
        console.show(f"{100 * share:.2f} % of {len(rows)} samples have the expected class.\n")
    console.show(figures_of.table(figures, target))
    console.show(f"{artifact.name} {figures_of.verdict(figures, target)}")
    console.show(f"C sources: {artifact.directory}  (call it as main.c there does)")


def _only(option: str, data: Path | None, texts: Path | None) -> None:
    if data is not None or texts is not None:
        raise UserError(f"{option} stands in place of --input and --texts.", "Leave these out.")


def _run_samples(
    artifact: Artifact, data: Path | None, texts: Path | None, where: str, timeout: float, repeat: int
) -> tuple[RunResult, list[Sample], Truth]:
    """Run the samples of a file."""
    from tvmtiny.cli import predictions
    from tvmtiny.frontend.data import load_samples
    from tvmtiny.runner import run

    if data is None:
        remedy = "Give samples with --input DATA.npz"
        others = {"tokenizer": ", or --text TEXT.", "features": ", or --pcm FILE.wav."}
        also = [other for key, other in others.items() if artifact.metadata.get(key) is not None]
        raise UserError("There is nothing to run on.", remedy + (also[0] if also else "."))
    samples = load_samples(artifact, data)
    truth = predictions.read_truth(artifact, data, texts, len(samples))
    result = run(artifact, on=where, samples=samples, timeout_s=timeout, repeat=repeat, jobs=0)
    _check_status(artifact, result.status)
    return result, samples, truth


def _run_texts(
    artifact: Artifact, texts: list[str], where: str, timeout: float, *, quiet: bool
) -> tuple[RunResult, list[Sample], Truth]:
    """Run texts of which the device makes the tokens."""
    from tvmtiny.cli.predictions import Truth
    from tvmtiny.tokenizer.text_run import run_texts

    done = run_texts(artifact, texts, where, timeout)
    if not quiet:
        for tokens in done.tokens:
            console.message(f"Tokens made on {where}: {' '.join(tokens)}")
        if done.checked:
            console.message("They are those of the tokenizers library.")
        else:
            console.message("The tokenizers library is not installed; the tokens were not compared with its.")
    return done.result, done.samples, Truth(texts=texts)


def _run_recordings(
    artifact: Artifact, wavs: list[Path], data: Path | None, where: str, timeout: float, *, quiet: bool
) -> tuple[RunResult, list[Sample], Truth]:
    """Run recordings of which the device makes the features."""
    from tvmtiny.cli import predictions
    from tvmtiny.features.device_run import front_end, run_recordings
    from tvmtiny.features.recordings import cut, read_recordings, read_wav

    about = front_end(artifact)
    if wavs and about["sample_rate"] is None:
        raise UserError(
            f"{artifact.name} takes samples of a sensor, not PCM.",
            "Give them with --input DATA.npz, key `samples`.",
        )
    whole = [read_wav(path, about["sample_rate"]) for path in wavs]
    whole += [] if data is None else read_recordings(data, about["channels"])
    parts = [list(cut(item, about, has_length=artifact.has_length)) for item in whole]
    done = run_recordings(
        artifact, [part.samples for group in parts for part in group], where, timeout, jobs=0
    )
    if not quiet:
        console.message(f"The features that were made on {where} are those of the NumPy twin.")
    labels = None if data is None else predictions.read_truth(artifact, data, None, len(whole)).labels
    names = [part.name for group in parts for part in group]
    if labels is not None:
        labels = [label for label, group in zip(labels, parts, strict=True) for _ in group]
    return done.result, done.samples, predictions.Truth(texts=names, labels=labels)


def _run_examples(
    artifact: Artifact, enrol: Path, where: str, timeout: float, *, as_text: bool
) -> tuple[Examples, str]:
    """Run what is to be enrolled; also says what differs from the integer reference."""
    from tvmtiny.cli import enrolment
    from tvmtiny.verify import expected_outputs

    enrolment.check(artifact)
    if as_text:
        labels, texts = enrolment.read_text_examples(enrol)
        result, samples, _ = _run_texts(artifact, texts, where, timeout, quiet=True)
    else:
        result, samples, truth = _run_samples(artifact, enrol, None, where, timeout, 1)
        if truth.labels is None:
            raise UserError(
                f"{enrol} has no `labels`.", "Give a label, a name or a number, for each example."
            )
        labels = truth.labels
    difference = first_difference(result.outputs, expected_outputs(artifact, samples))
    return enrolment.Examples(labels, result.outputs), difference and f"examples: {difference}"


def command(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="What `tvmtiny compile` wrote.", exists=True, file_okay=False),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="NPZ file keyed by the model's input names, batches along the first axis, or of recordings with the "
            "key `samples` for a model with a front end; with `labels`, the accuracy is reported.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="Text for a model that was compiled with --tokenizer; may be repeated.", show_default=False
        ),
    ] = None,
    pcm: Annotated[
        list[Path] | None,
        typer.Option(
            help="Mono WAV file of 16-bit PCM for a model that was compiled with --features; may be repeated.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    where: Annotated[
        str,
        typer.Option(
            "--on",
            metavar="host|qemu|serial:PORT",
            help="This computer, the core of the target in QEMU, or a board on a serial port.",
        ),
    ] = "qemu",
    repeat: Annotated[
        int, typer.Option(help="Runs of each sample; all must give the same bytes.", min=1)
    ] = 1,
    texts: Annotated[
        Path | None,
        typer.Option(
            help="Text file with a line a sample to show beside the result: TEXT, or LABEL<TAB>TEXT.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    enrol: Annotated[
        Path | None,
        typer.Option(
            help="Labelled examples, NPZ with `labels` (for --text: lines LABEL<TAB>TEXT): each sample gets the label "
            "of the nearest one, for a model whose output is an embedding.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    by_mean: Annotated[
        bool, typer.Option("--by-mean", help="With --enrol: compare with the mean of each label's examples.")
    ] = False,
    least_similarity: Annotated[
        float, typer.Option(help="With --enrol: what is less near is unknown.", min=-1, max=1)
    ] = -1,
    timeout: Annotated[float, typer.Option(help="Seconds until a run counts as hung.", min=1)] = 60,
    as_json: console.JsonOption = False,
) -> None:
    """Run a compiled model and compare its outputs, byte for byte, with the integer reference."""
    from tvmtiny.artifact import Artifact
    from tvmtiny.cli import enrolment, predictions
    from tvmtiny.cli import figures as figures_of
    from tvmtiny.features.recordings import has_samples
    from tvmtiny.report.latency import latency
    from tvmtiny.target import load_target
    from tvmtiny.verify import expected_outputs

    artifact = Artifact.load(directory)
    target = load_target(artifact.target)
    with console.progress(f"running on {where}") as update:
        examples, difference = None, ""
        if enrol is not None:
            examples, difference = _run_examples(artifact, enrol, where, timeout, as_text=bool(text))
        if text:
            _only("--text", data, texts)
            result, samples, truth = _run_texts(artifact, text, where, timeout, quiet=as_json)
        elif pcm:
            _only("--pcm", data, texts)
            result, samples, truth = _run_recordings(artifact, pcm, None, where, timeout, quiet=as_json)
        elif data is not None and artifact.metadata.get("features") and has_samples(data):
            result, samples, truth = _run_recordings(artifact, [], data, where, timeout, quiet=as_json)
        else:
            result, samples, truth = _run_samples(artifact, data, texts, where, timeout, repeat)
        update("computing the integer reference")
        expected = expected_outputs(artifact, samples)
    difference = difference or first_difference(result.outputs, expected)

    rows: Sequence[Prediction | Match] = []
    if examples is not None:
        rule = enrolment.Rule(by_mean, least_similarity)
        rows = enrolment.matches(artifact, examples, result.outputs, truth, rule)
    elif predictions.is_classifier(artifact):
        rows = predictions.predict(artifact, result.outputs, truth)
    times = latency(result.cycles, result.clock_hz, result.counter)
    figures = figures_of.collect(artifact, target, None if where == "host" else result, samples[0].n_tokens)
    if as_json:
        report = _report(artifact, where, figures, rows, result.outputs)
        report["latency"] = times.to_json() if times else None
        console.show_json({**report, "bit_exact": not difference})
    else:
        _show(artifact, where, figures, rows, target)
        if times and times.runs > 1:
            console.show(times.text())
    if difference:
        raise ResultMismatch(
            f"{difference}.",
            "This is a defect of tvmtiny or of the C compiler: please report it with the model.",
        )
    if not as_json:
        console.show("All outputs equal the integer reference, byte for byte.")
