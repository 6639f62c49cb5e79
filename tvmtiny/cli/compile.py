"""`tvmtiny compile`: a trained model becomes a directory of C."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated

import typer

from tvmtiny.cli import compile_tables as tables
from tvmtiny.cli import compressed, console
from tvmtiny.errors import UserError

LAYER_WEIGHTS = ("int8", "int4")
"""Types of weights that a single layer can have."""


class Tuned(enum.StrEnum):
    """Records of which objective choose schedules."""

    none = "none"
    latency = "latency"
    flash = "flash"
    balanced = "balanced"


class WeightType(enum.StrEnum):
    """Types of weights in flash."""

    int8 = "int8"
    int4 = "int4"
    int16 = "int16"


class Compression(enum.StrEnum):
    """Forms of weights in flash."""

    none = "none"
    packed = "packed"
    huffman = "huffman"
    auto = "auto"


class Decode(enum.StrEnum):
    """When compressed weights are decoded."""

    tile = "tile"
    boot = "boot"
    rows = "rows"


class Rounding(enum.StrEnum):
    """How weights are rounded to integers."""

    auto = "auto"
    nearest = "nearest"
    gptq = "gptq"


class RangeMethod(enum.StrEnum):
    """How ranges of activations are chosen from calibration data."""

    auto = "auto"
    minmax = "minmax"
    percentile = "percentile"
    entropy = "entropy"


class FoldMode(enum.StrEnum):
    """Which attention operators get Q K^T as one matrix a head."""

    auto = "auto"
    never = "never"
    always = "always"


class Residual(enum.StrEnum):
    """Element type of the residual stream."""

    int8 = "int8"
    int16 = "int16"


def parse_labels(options: list[str]) -> Path | dict[str, Path] | None:
    """[OUTPUT=]FILE options as the compiler takes them."""
    named = {name: Path(file) for name, found, file in (text.partition("=") for text in options) if found}
    if len(named) == len(options):
        return named or None
    if len(options) > 1:
        raise UserError(
            f"--labels is given {len(options)} times, and not each time for an output.",
            "Give OUTPUT=FILE for each output that has labels.",
        )
    return Path(options[0])


def parse_layer_weights(texts: list[str]) -> dict[str, str]:
    """Read LAYER=TYPE options; raises UserError that quotes the one that is not of this form."""
    types: dict[str, str] = {}
    for text in texts:
        name, _, found = text.rpartition("=")
        if not name or found not in LAYER_WEIGHTS:
            raise UserError(
                f"--layer-weights {text} is not LAYER=TYPE.",
                f"Write a layer's name and {' or '.join(LAYER_WEIGHTS)}, as in --layer-weights classifier=int4.",
            )
        types[name] = found
    return types


def parse_layers(texts: list[str]) -> list[str]:
    """Read LAYER[,LAYER...] options; raises UserError that quotes one that names nothing."""
    names = [name.strip() for text in texts for name in text.split(",")]
    if "" in names:
        raise UserError(
            f"--int16 {','.join(names)} has an empty name.",
            "Write names of layers, as in --int16 layer1,layer2.",
        )
    return names


def parse_shapes(texts: list[str]) -> dict[str, tuple[int, ...]] | None:
    """Read INPUT=1x32 options; raises UserError that quotes the one that is not of this form."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        # The last "=": names of inputs may hold one.
        match = re.fullmatch(r"(.+)=([1-9]\d*(?:x[1-9]\d*)*)", text)
        if match is None:
            raise UserError(
                f"--shape {text} is not INPUT=SIZES.",
                "Write the input's name and its sizes joined by x, as in --shape input_ids=1x32.",
            )
        if match[1] in shapes:
            raise UserError(f"--shape names the input {match[1]} twice.", "Give each input one shape.")
        shapes[match[1]] = tuple(int(size) for size in match[2].split("x"))
    return shapes or None


def command(
    model: compressed.ModelArgument,
    target: Annotated[
        str, typer.Option(help="Board or core; `tvmtiny targets` lists them.", show_default=False)
    ],
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="NPZ file of typical inputs: keys are input names, batches along the first axis.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Prefix of the C names.", show_default="the output directory's name"),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[OUTPUT=]FILE",
            help="Text file with one class name a line, of the first or the named output; may be repeated.",
            show_default="those of hf:DIR",
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="tokenizer.json of the model: the C takes text.",
            exists=True,
            dir_okay=False,
            show_default="that of hf:DIR",
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Description (TOML) of the model's front end: the C takes PCM, or raw samples of a sensor.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    max_tokens: console.MaxTokensOption = None,
    shape: console.ShapeOption = None,
    range_method: Annotated[
        RangeMethod,
        typer.Option(help="How activation ranges are chosen; auto takes the best one of each layer."),
    ] = RangeMethod.auto,
    fold_qk: Annotated[
        FoldMode,
        typer.Option(help="Make one matrix a head of Q K^T; auto where that saves multiply-accumulates."),
    ] = FoldMode.auto,
    residual: Annotated[
        Residual,
        typer.Option(
            help="Type of the residual stream. int16 is for pre-LayerNorm models with outlier channels; it costs "
            "tokens x embedding bytes of RAM."
        ),
    ] = Residual.int8,
    int16: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER[,LAYER...]",
            help="Keep the results of these layers in int16; names as in the table of --verify, or patterns with *.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        WeightType,
        typer.Option(
            help="Weights in flash; int4 leaves embeddings and the first and last dense layer int8, int16 holds the "
            "values of int8 in twice the flash, for fewer instructions on Cortex-M4 and M33."
        ),
    ] = WeightType.int8,
    layer_weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER=TYPE",
            help="Weights of one layer, int8 or int4, whatever --weights says; may be repeated.",
            show_default=False,
        ),
    ] = None,
    rounding: Annotated[
        Rounding,
        typer.Option(
            help="Round weights each to the nearest, or one after another so that the others make up for the error on "
            "calibration data (gptq); auto does that for int4."
        ),
    ] = Rounding.auto,
    bias_correction: Annotated[
        bool,
        typer.Option(
            "--bias-correction",
            help="Take the mean error that rounded weights make on calibration data off biases.",
        ),
    ] = False,
    smooth: Annotated[
        bool,
        typer.Option(
            "--smooth",
            help="Move outlier columns of activations into weights, where calibration data says that it helps: the "
            "same float model, rounded with less error.",
        ),
    ] = False,
    scales: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON file of scales and zero points of single values, such as those that training has learned.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    compress_weights: Annotated[
        Compression,
        typer.Option(
            help="Hold weights and embeddings in Huffman codes, or as indices into codebooks where there are at most "
            "128 distinct values, each where that is shorter; the results stay the same."
        ),
    ] = Compression.none,
    decode: Annotated[
        Decode,
        typer.Option(
            help="Decode compressed weights in each run, the matrices of one operator at a time, or once at boot into "
            "RAM of the arena; rows compresses embedding tables alone, which takes no RAM."
        ),
    ] = Decode.tile,
    tuned: Annotated[
        Tuned,
        typer.Option(
            help="Which records of `tvmtiny tune` choose schedules, by objective; latency may store weights as int16."
        ),
    ] = Tuned.balanced,
    step: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Take at most N new tokens a call and keep what is needed of earlier ones: causal models only.",
            min=1,
            show_default=False,
        ),
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(
            help="NPZ file as for calibration, with `labels` if there are any: compare float and integer model on it.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    dump_dir: Annotated[
        Path | None,
        typer.Option(help="Write what stands after each stage to this directory.", file_okay=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Output directory.", file_okay=False, show_default="build/NAME"),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print the time of each stage and the memory plan.")
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Compile MODEL to a directory of C for one target."""
    shapes = parse_shapes(shape or [])

    from tvmtiny.cli import figures as figures_of
    from tvmtiny.frontend.opening import model_stem
    from tvmtiny.target import load_target

    board = load_target(target)  # an unknown target is reported before TVM is imported
    stages: list[tuple[str, float]] = []
    with console.progress(f"compiling {model}: loading TVM") as update:
        from tvmtiny.compiler import compile as compile_model

        def on_stage(stage: str, seconds: float) -> None:
            stages.append((stage, seconds))
            update(f"compiling {model}: {stage} done")

        update(f"compiling {model}")
        artifact = compile_model(
            model,
            target=target,
            calibration=calibration,
            name=name,
            labels=parse_labels(labels or []),
            tokenizer=tokenizer,
            features=features,
            max_tokens=max_tokens,
            shapes=shapes,
            range_method=range_method.value,
            fold_qk=fold_qk.value,
            residual=residual.value,
            int16=parse_layers(int16 or []),
            weights=weights.value,
            layer_weights=parse_layer_weights(layer_weights or []),
            rounding=rounding.value,
            bias_correction=bias_correction,
            smooth=smooth,
            scales=scales,
            compress_weights=compress_weights.value,
            decode=decode.value,
            tuned=tuned.value,
            step=step,
            verify=verify,
            dump_dir=dump_dir,
            output=output or console.DEFAULT_PARENT / (name or model_stem(model)),
            on_stage=on_stage,
        )
    if verbose:
        for stage, seconds in (*stages, ("total", sum(seconds for _, seconds in stages))):
            console.message(f"{seconds:8.2f} s  {stage}")
    figures = figures_of.collect(artifact, board)
    if as_json:
        console.show_json(tables.report(artifact, figures, stages))
    else:
        tables.show(artifact, figures, board, verbose=verbose)
