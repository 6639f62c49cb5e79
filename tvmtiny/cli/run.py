"""`tvmtiny run`: build a compiled model, run it, compare every byte with the integer reference."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmtiny.cli import console
from tvmtiny.cli.run_inputs import Inputs, Runs
from tvmtiny.cli.run_options import check_options
from tvmtiny.errors import ResultMismatch, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from tvmtiny.artifact import Artifact
    from tvmtiny.cli.enrolment import Examples, Match, Rule
    from tvmtiny.cli.figures import Figures
    from tvmtiny.cli.predictions import Prediction, Truth
    from tvmtiny.target import Target


Outputs = list[dict[str, "np.ndarray"]]

PowerOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|ppk2:PORT",
        help="Energy of each run: a CSV trace of these runs, or a Power Profiler Kit II that records them.",
        show_default=False,
    ),
]
VoltageOption = Annotated[
    float | None,
    typer.Option(help="Supply in volt, for a trace without one.", min=0.1, show_default=False),
]
ChannelOption = Annotated[
    str | None,
    typer.Option(
        "--power-channel",
        help="Digital input that the board's pin is on; the one that changes if not given.",
        show_default=False,
    ),
]


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


def _report(
    artifact: Artifact,
    target: Target,
    where: str,
    figures: Figures,
    rows: Sequence[Prediction | Match],
    outputs: Outputs,
) -> dict[str, Any]:
    from tvmtiny.cli import predictions

    plain = [{name: values.tolist() for name, values in output.items()} for output in outputs]
    details = [dataclasses.asdict(row) for row in rows] or [{} for _ in plain]
    return {
        "name": artifact.name,
        "target": target.name,
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


def _enrolled(artifact: Artifact, enrol: Path, runs: Runs, *, as_text: bool) -> tuple[Examples, str]:
    """Run what is to be enrolled; also says what differs from the integer reference."""
    from tvmtiny.cli import enrolment
    from tvmtiny.verify import expected_outputs

    enrolment.check(artifact)
    once = dataclasses.replace(runs, repeat=1, quiet=True)
    if as_text:
        labels, texts = enrolment.read_text_examples(enrol)
        result, samples, _ = once.of(artifact, Inputs(texts=texts))
    else:
        result, samples, truth = once.of(artifact, Inputs(data=enrol))
        if truth.labels is None:
            raise UserError(
                f"{enrol} has no `labels`.", "Give a label, a name or a number, for each example."
            )
        labels = truth.labels
    difference = first_difference(result.outputs, expected_outputs(artifact, samples))
    return enrolment.Examples(labels, result.outputs), difference and f"examples: {difference}"


def _rows(
    artifact: Artifact, outputs: Outputs, truth: Truth, examples: Examples | None, rule: Rule
) -> Sequence[Prediction | Match]:
    """What is told of each sample: its nearest example, or its class; nothing of other outputs."""
    from tvmtiny.cli import enrolment, predictions

    if examples is not None:
        return enrolment.matches(artifact, examples, outputs, truth, rule)
    if predictions.is_classifier(artifact) and artifact.metadata.get("step") is None:
        return predictions.predict(artifact, outputs, truth)
    return []


def _prompt(
    text: list[str] | None, ids: str | None, data: Path | None, texts: Path | None
) -> str | list[int]:
    """What to continue: one text, or ids."""
    from tvmtiny.cli.generation import parse_ids

    if data is not None or texts is not None or len(text or []) + (ids is not None) != 1:
        raise UserError("--generate continues one prompt.", "Give --text TEXT once, or --ids 1,2,3.")
    return parse_ids(ids) if ids is not None else (text or [""])[0]


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
    pcm: Annotated[
        list[Path] | None,
        typer.Option(
            help="Mono WAV file of 16-bit PCM for a model that was compiled with --features; may be repeated.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    where: console.RunnerOption = "qemu",
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
    target_name: Annotated[
        str | None, typer.Option("--target", help="Another board than the model's.", show_default=False)
    ] = None,
    power: PowerOption = None,
    voltage: VoltageOption = None,
    power_channel: ChannelOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Run a compiled model and compare its outputs, byte for byte, with the integer reference."""
    from tvmtiny.artifact import Artifact
    from tvmtiny.boards.power import energy
    from tvmtiny.boards.recorder import recording
    from tvmtiny.cli import enrolment, generation
    from tvmtiny.cli import figures as figures_of
    from tvmtiny.report.latency import latency
    from tvmtiny.runner.steps import count_of_runs
    from tvmtiny.target import load_target
    from tvmtiny.verify import expected_outputs

    check_options(
        {
            "--generate": generate is not None, "--enrol": enrol is not None, "--pcm": bool(pcm),
            "--ids": ids is not None, "--top-k": top_k is not None, "--temperature": temperature is not None,
            "--seed": seed != 0, "--repeat": repeat != 1, "--by-mean": by_mean,
            "--least-similarity": least_similarity != -1, "--power": power is not None,
            "--voltage": voltage is not None, "--power-channel": power_channel is not None,
        }
    )  # fmt: skip
    artifact = Artifact.load(directory)
    target = load_target(target_name or artifact.target)
    if generate is not None:
        generation.run_generation(
            artifact,
            where,
            _prompt(text, ids, data, texts),
            generate,
            generation.sampler_of(top_k, temperature, seed),
            target=target,
            timeout=timeout,
            as_json=as_json,
        )
        return
    inputs = Inputs(data, texts, text or (), pcm or ())
    runs = Runs(where, target, timeout, repeat, quiet=as_json)
    examples, difference = None, ""
    with console.progress(f"running on {where}") as update:
        if enrol is not None:
            examples, difference = _enrolled(artifact, enrol, runs, as_text=bool(text))
        with recording(power) if power else contextlib.nullcontext() as trace:
            result, samples, truth = runs.of(artifact, inputs)
            count = count_of_runs(artifact, samples, repeat)
            spent = energy(trace(), count, voltage, power_channel) if trace else None
        update("computing the integer reference")
        expected = expected_outputs(artifact, samples)
    difference = difference or first_difference(result.outputs, expected)

    rows = _rows(artifact, result.outputs, truth, examples, enrolment.Rule(by_mean, least_similarity))
    times = latency(result.cycles, result.clock_hz, result.counter)
    counted = min(artifact.max_tokens, samples[0].n_tokens)
    figures = figures_of.collect(artifact, target, None if where == "host" else result, counted)
    if as_json:
        report = _report(artifact, target, where, figures, rows, result.outputs)
        report["latency"] = times.to_json() if times else None
        report["energy"] = spent.to_json() if spent else None
        console.show_json({**report, "bit_exact": not difference})
    else:
        _show(artifact, where, figures, rows, target)
        if times and times.runs > 1:
            console.show(times.text())
        if spent:
            console.show(spent.text())
    if difference:
        raise ResultMismatch(
            f"{difference}.",
            "This is a defect of tvmtiny or of the C compiler: please report it with the model.",
        )
    if not as_json:
        console.show("All outputs equal the integer reference, byte for byte.")
