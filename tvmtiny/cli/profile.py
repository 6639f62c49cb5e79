"""`tvmtiny profile`: instructions, estimated cycles and bytes of one inference, by operator and by function."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmtiny.cli import console

if TYPE_CHECKING:
    from rich.table import Table

    from tvmtiny.artifact import Artifact
    from tvmtiny.report.profile import Profile
    from tvmtiny.runner import Sample

FUNCTIONS_SHOWN = 12
INSTRUCTIONS = "instruc-\ntions"
CYCLES = "estimated\ncycles"


def command(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="What `tvmtiny compile` wrote.", exists=True, file_okay=False),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="NPZ file as for `run`; the first of its samples with the most tokens is profiled.",
            exists=True,
            dir_okay=False,
            show_default="DIR/reference/inputs.npz",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Also write a page with charts and the memory map, which needs no network.", dir_okay=False
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also print the assumptions of the cycle estimate.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds until a run counts as hung.", min=1)] = 60,
    as_json: console.JsonOption = False,
) -> None:
    """Count the instructions of one inference by operator, exactly, and estimate its cycles."""
    from tvmtiny.artifact import Artifact
    from tvmtiny.report.page import page
    from tvmtiny.report.profile import profile

    artifact = Artifact.load(directory)
    with console.progress("counting instructions in QEMU"):
        found = profile(artifact, _sample(artifact, data), timeout_s=timeout)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(page(found), encoding="utf-8")
    if as_json:
        console.show_json(_report(found))
        return
    _show(found, explain=explain)
    if html is not None:
        console.message(f"Wrote {html}")


def _sample(artifact: Artifact, data: Path | None) -> Sample:
    """The first sample with the most tokens, of the user's file or of the reference vectors."""
    from tvmtiny.frontend.data import load_samples

    samples = load_samples(artifact, data or artifact.reference_inputs)
    return max(samples, key=lambda sample: sample.n_tokens)


def _report(found: Profile) -> dict[str, Any]:
    def row(item: Any) -> dict[str, Any]:
        fields = dataclasses.asdict(item)
        return {
            **fields,
            "share": _ratio(item.estimated_cycles, found.estimated_cycles),
            "latency_ms": found.latency_ms(item.estimated_cycles),
        }

    def operator(item: Any) -> dict[str, Any]:
        return {
            **row(item),
            "instructions_per_mac": _ratio(item.instructions, item.macs),
            "estimated_cycles_per_mac": _ratio(item.estimated_cycles, item.macs),
        }

    return {
        "name": found.artifact.name,
        "target": found.target.name,
        "cpu": found.target.cpu,
        "clock_hz": found.target.clock_hz or None,
        "directory": found.artifact.directory,
        "n_tokens": found.n_tokens,
        "max_tokens": found.artifact.max_tokens,
        "instructions": found.instructions,
        "estimated_cycles": found.estimated_cycles,
        "latency_ms": found.latency_ms(found.estimated_cycles),
        "macs": found.macs,
        "instructions_per_mac": _ratio(found.instructions, found.macs),
        "estimated_cycles_per_mac": _ratio(found.estimated_cycles, found.macs),
        "arena_bytes": found.artifact.arena_bytes,
        "stack_bytes": found.stack_bytes,
        "code_bytes": found.sizes.code_bytes,
        "table_bytes": found.sizes.table_bytes,
        "weight_bytes": found.sizes.weight_bytes,
        "rows": [operator(item) for item in found.operators],
        "functions": [row(item) for item in found.functions],
        "assumptions": found.assumptions,
    }


def _ratio(part: int, whole: int | None) -> float | None:
    return part / whole if whole else None


def _show(found: Profile, *, explain: bool) -> None:
    console.show(_operators(found), _functions(found))
    milliseconds = found.latency_ms(found.estimated_cycles)
    time = (
        f", {milliseconds:.2f} ms at {found.target.clock_hz / 1e6:g} MHz" if milliseconds is not None else ""
    )
    console.show(
        f"{found.artifact.name} on {found.target.name} ({found.target.cpu}), {found.n_tokens} of at most "
        f"{found.artifact.max_tokens} tokens:\n"
        f"{found.instructions:,} instructions (exact), about {found.estimated_cycles:,} cycles (estimate){time}"
    )
    if explain:
        console.show("\nThe estimate of cycles assumes:", *(f"- {text}" for text in found.assumptions))
    else:
        console.show("Cycles are an estimate, not a measurement: --explain prints its assumptions.")


def _operators(found: Profile) -> Table:
    per_mac = ("instr.\n/MAC", "cycles\n/MAC")
    numbers = (INSTRUCTIONS, CYCLES, "share", "MACs", *per_mac, "arena\nbytes", "flash\nbytes")
    table = console.table("Operators", "operator", "kernel", *numbers, right=numbers)
    table.padding = (0, 1, 0, 0)  # so that usual names of layers fit into 110 columns
    for row in found.operators:
        table.add_row(
            row.name,
            row.kernel,
            *_counts(row.instructions, row.estimated_cycles, found),
            *_of_macs(row.macs, row.instructions, row.estimated_cycles),
            f"{row.arena_bytes:,}",
            f"{row.weight_bytes:,}",
        )
    table.add_section()
    table.add_row(
        "all",
        "",
        *_counts(found.instructions, found.estimated_cycles, found),
        *_of_macs(found.macs, found.instructions, found.estimated_cycles),
        f"{found.artifact.arena_bytes:,}",
        f"{found.sizes.weight_bytes:,}",
    )
    return table


def _functions(found: Profile) -> Table:
    numbers = ("calls", INSTRUCTIONS, CYCLES, "share", "code\nbytes")
    table = console.table("Functions", "function", *numbers, right=numbers)
    for row in found.functions[:FUNCTIONS_SHOWN]:
        counts = _counts(row.instructions, row.estimated_cycles, found)
        table.add_row(row.name, f"{row.calls:,}", *counts, f"{row.code_bytes:,}")
    rest = found.functions[FUNCTIONS_SHOWN:]
    if rest:
        instructions = sum(row.instructions for row in rest)
        cycles = sum(row.estimated_cycles for row in rest)
        table.add_row(f"... and {len(rest)} more", "", *_counts(instructions, cycles, found), "")
    return table


def _counts(instructions: int, cycles: int, found: Profile) -> tuple[str, str, str]:
    share = _ratio(cycles, found.estimated_cycles) or 0
    return f"{instructions:,}", f"{cycles:,}", f"{100 * share:.1f} %"


def _of_macs(macs: int | None, instructions: int, cycles: int) -> tuple[str, str, str]:
    if not macs:
        return ("", "", "") if macs == 0 else ("?", "", "")
    return f"{macs:,}", f"{instructions / macs:.2f}", f"{cycles / macs:.2f}"
