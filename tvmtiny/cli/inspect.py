"""`tvmtiny inspect`: what a model consists of and which targets it fits, before it is compiled."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmtiny.cli import compressed, console
from tvmtiny.cli.compile import (
    Compression,
    Decode,
    FoldMode,
    Residual,
    WeightType,
    parse_layer_weights,
    parse_layers,
    parse_shapes,
)
from tvmtiny.cli.console import kilobytes

if TYPE_CHECKING:
    from rich.table import Table

    from tvmtiny.report.inspection import Fit, Inspection


def command(
    model: compressed.ModelArgument,
    target: Annotated[
        list[str] | None,
        typer.Option(help="Board or core; may be repeated.", show_default="all"),
    ] = None,
    max_tokens: console.MaxTokensOption = None,
    shape: console.ShapeOption = None,
    latency_budget: Annotated[
        float | None,
        typer.Option(metavar="MS", help="The longest that an inference may take, in ms.", min=0),
    ] = None,
    fold_qk: Annotated[
        FoldMode, typer.Option(help="As for compile: where Q K^T becomes one matrix a head.")
    ] = FoldMode.auto,
    weights: Annotated[
        WeightType,
        typer.Option(help="As for compile: weights in flash; int16 leaves out targets that cannot use them."),
    ] = WeightType.int8,
    layer_weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER=TYPE",
            help="As for compile: weights of one layer; may be repeated.",
            show_default=False,
        ),
    ] = None,
    int16: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER[,LAYER...]", help="As for compile: results to keep in int16.", show_default=False
        ),
    ] = None,
    compress_weights: Annotated[
        Compression, typer.Option(help="As for compile: form of weights and embeddings in flash.")
    ] = Compression.none,
    decode: Annotated[
        Decode, typer.Option(help="As for compile: when compressed weights are decoded.")
    ] = Decode.tile,
    residual: Annotated[
        Residual, typer.Option(help="As for compile: type of the residual stream.")
    ] = Residual.int8,
    step: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="As for compile: the model of a step of N tokens, at the end of a sequence.",
            min=1,
            show_default=False,
        ),
    ] = None,
    as_json: console.JsonOption = False,
) -> None:
    """Show the operators of MODEL and which targets it fits; needs no calibration data and no C compiler."""
    shapes = parse_shapes(shape or [])

    from tvmtiny.target import load_target

    named = [load_target(name) for name in target or []]
    with console.progress(f"inspecting {model}"):
        from tvmtiny.options import ModelOptions
        from tvmtiny.report.inspection import inspect, targets_for

        options = ModelOptions(
            shapes=shapes,
            max_tokens=max_tokens,
            fold_qk=fold_qk.value,
            weights=weights.value,
            layer_weights=parse_layer_weights(layer_weights or []),
            int16=parse_layers(int16 or []),
            compress_weights=compress_weights.value,
            decode=decode.value,
            residual=residual.value,
            step=step,
        )
        found = inspect(model, named or targets_for(weights.value), options, latency_budget_ms=latency_budget)
    if as_json:
        console.show_json(_report(model, found))
    else:
        _show(model, found)


def _report(model: str, found: Inspection) -> dict[str, Any]:
    from tvmtiny.report.estimate import ASSUMPTIONS

    return {
        "model": model,
        "supported": bool(found.fits),
        "max_tokens": found.max_tokens,
        "has_length": found.has_length,
        "in_steps": found.in_steps,
        "parameters": sum(row.parameters for row in found.operators),
        "macs": sum(row.macs or 0 for row in found.operators) if found.fits else None,
        "rows": [dataclasses.asdict(row) for row in found.operators],
        "unsupported": [dataclasses.asdict(row) for row in found.unsupported],
        "problems": [dataclasses.asdict(row) for row in found.problems],
        "targets": [_fit(row) for row in found.fits],
        "assumptions": ASSUMPTIONS,
    }


def _fit(fit: Fit) -> dict[str, Any]:
    return {
        "name": fit.target.name,
        "cpu": fit.target.cpu,
        "clock_hz": fit.target.clock_hz or None,
        "weight_bytes": fit.weight_bytes,
        "code_bytes": fit.code_bytes,
        "flash_bytes": fit.flash_bytes,
        "flash_available_bytes": fit.target.flash_bytes or None,
        "arena_bytes": fit.arena_bytes,
        "arena_available_bytes": fit.target.ram_bytes or None,
        "estimated_cycles": fit.estimated_cycles,
        "latency_ms": fit.latency_ms,
        "fits": fit.fits,
        "lacking": [{"what": what, **dataclasses.asdict(problem)} for what, problem in fit.lacking.items()],
    }


def _show(model: str, found: Inspection) -> None:
    if found.operators:
        console.show(_operators(found))
    if found.fits:
        console.show(_targets(found.fits))
        tokens = f"1 to {found.max_tokens}" if found.has_length else f"{found.max_tokens}"
        when = " a step; figures are for" if found.in_steps else "; figures are for"
        end = ", at the end of a sequence" if found.in_steps else ""
        console.show(f"{Path(model).name} takes {tokens} tokens{when} {found.max_tokens}{end}.")
        _show_lacking(found.fits)
        _show_assumptions()
        return
    for row in found.unsupported:
        console.show_plain(f"not supported: {row.operator} at node '{row.node}'. {row.remedy}")
    for problem in found.problems:
        console.show_plain(f"cannot be compiled: {problem.message} {problem.remedy}")


def _operators(found: Inspection) -> Table:
    numbers = ("parameters", "MACs", "weights (bytes)")
    stored = f", weights as stored for {found.fits[0].target.name}" if found.fits else ""
    table = console.table(f"Operators after fusion{stored}", "operator", "kernel", *numbers, right=numbers)
    for row in found.operators:
        table.add_row(row.name, row.kernel, f"{row.parameters:,}", _count(row.macs), _count(row.weight_bytes))
    table.add_section()
    macs, weights = (
        sum(getattr(row, key) or 0 for row in found.operators) if found.fits else None
        for key in ("macs", "weight_bytes")
    )
    parameters = sum(row.parameters for row in found.operators)
    table.add_row("all", "", f"{parameters:,}", _count(macs), _count(weights))
    return table


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _targets(fits: tuple[Fit, ...]) -> Table:
    numbers = ("flash", "of", "arena", "of", "cycles", "latency")
    table = console.table("Targets", "target", "core", *numbers, "verdict", right=numbers)
    table.padding = (0, 1, 0, 0)  # so that a row fits into 110 columns
    for fit in fits:
        target = fit.target
        verdict = "[green]fits[/]" if fit.fits else f"[red]exceeds {', '.join(fit.lacking)}[/]"
        table.add_row(
            target.name,
            target.cpu,
            _about(kilobytes(fit.flash_bytes)) if fit.code_bytes is not None else kilobytes(fit.weight_bytes),
            kilobytes(target.flash_bytes) if target.flash_bytes else "",
            kilobytes(fit.arena_bytes),
            kilobytes(target.ram_bytes) if target.ram_bytes else "",
            "" if fit.estimated_cycles is None else _about(f"{fit.estimated_cycles / 1e6:.3g} M"),
            "" if fit.latency_ms is None else _about(f"{fit.latency_ms:.3g} ms"),
            verdict,
        )
    return table


def _about(text: str) -> str:
    """Marks an estimate."""
    return f"~ {text}"


def _show_lacking(fits: tuple[Fit, ...]) -> None:
    for fit in fits:
        for problem in fit.lacking.values():
            console.show_plain(f"{fit.target.name}: {problem.message} {problem.remedy}")


def _show_assumptions() -> None:
    from tvmtiny.report.estimate import ASSUMPTIONS

    console.show("\n~ marks estimates, not measurements:")
    for text in ASSUMPTIONS:
        console.show_plain(f"- {text}")
