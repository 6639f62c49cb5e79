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
    artifact: Artifact, where: str, figures: Figures, rows: Sequence[Prediction], outputs: Outputs
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
    artifact: Artifact, where: str, figures: Figures, rows: Sequence[Prediction], target: Target
) -> None:
    from tvmtiny.cli import figures as figures_of
    from tvmtiny.cli import predictions

    if rows:
        console.show(predictions.table(rows, _place(where, target)))
        if len(rows) > predictions.ROWS_SHOWN:
            console.show(f"... and {len(rows) - predictions.ROWS_SHOWN} more samples (--json lists all)\n")
    share = predictions.accuracy(rows)
    if share is not None:
        console.show(f"{100 * share:.2f} % of {len(rows)} samples have the expected class.\n")
    console.show(figures_of.table(figures, target))
    console.show(f"{artifact.name} {figures_of.verdict(figures, target)}")
    console.show(f"C sources: {artifact.directory}  (call it as main.c there does)")


def _only_text(data: Path | None, texts: Path | None) -> None:
    if data is not None or texts is not None:
        raise UserError("--text stands in place of --input and --texts.", "Leave these out.")


def _prompt(
    text: list[str] | None, ids: str | None, data: Path | None, texts: Path | None
) -> str | list[int]:
    """What to continue: one text, or ids."""
    from tvmtiny.cli.generation import parse_ids

    if data is not None or texts is not None or len(text or []) + (ids is not None) != 1:
        raise UserError("--generate continues one prompt.", "Give --text TEXT once, or --ids 1,2,3.")
    return parse_ids(ids) if ids is not None else (text or [""])[0]


def _run_samples(
    artifact: Artifact, data: Path | None, texts: Path | None, where: str, timeout: float
) -> tuple[RunResult, list[Sample], Truth]:
    """Run the samples of a file."""
    from tvmtiny.cli import predictions
    from tvmtiny.frontend.data import load_samples
    from tvmtiny.runner import run
    from tvmtiny.runner.steps import run_sequences

    if data is None:
        remedy = "Give samples with --input DATA.npz"
        tokenizer = artifact.metadata.get("tokenizer") is not None
        raise UserError(
            "There is nothing to run on.", f"{remedy}, or --text TEXT." if tokenizer else f"{remedy}."
        )
    samples = load_samples(artifact, data)
    truth = predictions.read_truth(artifact, data, texts, len(samples))
    if artifact.metadata.get("step") is not None:
        result = run_sequences(artifact, where, samples, timeout_s=timeout)
    else:
        result = run(artifact, on=where, samples=samples, timeout_s=timeout, jobs=0)
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


def command(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="What `tvmtiny compile` wrote.", exists=True, file_okay=False),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="NPZ file keyed by the model's input names, batches along the first axis; "
            "with `labels`, the accuracy is reported.",
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
    generate: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Let a model that was compiled with --step continue --text, or --ids, by N tokens.",
            min=1,
            show_default=False,
        ),
    ] = None,
    ids: Annotated[
        str | None,
        typer.Option(help="Token ids to continue, separated by commas.", show_default=False),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Draw among the K likeliest tokens.", show_default="the likeliest one")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="What logits are divided by before a draw.", show_default="1")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws: the same one gives the same text.")] = 0,
    where: Annotated[
        str,
        typer.Option("--on", metavar="host|qemu", help="This computer, or the core of the target in QEMU."),
    ] = "qemu",
    texts: Annotated[
        Path | None,
        typer.Option(
            help="Text file with a line a sample to show beside the result: TEXT, or LABEL<TAB>TEXT.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds until a run counts as hung.", min=1)] = 60,
    as_json: console.JsonOption = False,
) -> None:
    """Run a compiled model and compare its outputs, byte for byte, with the integer reference."""
    from tvmtiny.artifact import Artifact
    from tvmtiny.cli import figures as figures_of
    from tvmtiny.cli import generation, predictions
    from tvmtiny.target import load_target
    from tvmtiny.verify import expected_outputs

    artifact = Artifact.load(directory)
    target = load_target(artifact.target)
    if generate is not None:
        prompt = _prompt(text, ids, data, texts)
        sampler = generation.sampler_of(top_k, temperature, seed)
        generation.run_generation(
            artifact, where, prompt, generate, sampler, timeout=timeout, as_json=as_json
        )
        return
    with console.progress(f"running on {where}") as update:
        if text:
            _only_text(data, texts)
            result, samples, truth = _run_texts(artifact, text, where, timeout, quiet=as_json)
        else:
            result, samples, truth = _run_samples(artifact, data, texts, where, timeout)
        update("computing the integer reference")
        expected = expected_outputs(artifact, samples)
    difference = "" if expected is None else first_difference(result.outputs, expected)

    stepped = artifact.metadata.get("step") is not None  # outputs are rows of tokens then
    classes = predictions.is_classifier(artifact) and not stepped
    rows = predictions.predict(artifact, result.outputs, truth) if classes else []
    counted = min(artifact.max_tokens, samples[0].n_tokens)
    figures = figures_of.collect(artifact, target, None if where == "host" else result, counted)
    if as_json:
        report = _report(artifact, where, figures, rows, result.outputs)
        console.show_json({**report, "bit_exact": None if expected is None else not difference})
    else:
        _show(artifact, where, figures, rows, target)
    if difference:
        raise ResultMismatch(
            f"{difference}.",
            "This is a defect of tvmtiny or of the C compiler: please report it with the model.",
        )
    if expected is not None and not as_json:
        console.show("All outputs equal the integer reference, byte for byte.")
