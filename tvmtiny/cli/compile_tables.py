"""What `tvmtiny compile` prints: memory, schedules, storage, and quality beside the float model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvmtiny.cli import console, verification

if TYPE_CHECKING:
    from tvmtiny.artifact import Artifact
    from tvmtiny.cli.figures import Figures
    from tvmtiny.target import Target

LAYERS_SHOWN = 8
"""A model of a hundred layers must not fill the screen: the worst ones say what is wrong."""


def _quality(artifact: Artifact) -> dict[str, Any]:
    """What the compiler measured against the float model, where it had calibration data."""
    return artifact.metadata.get("quality", {})


def _folded(artifact: Artifact) -> list[str]:
    """The attention operators whose Q K^T became one matrix a head."""
    return [row["name"] for row in artifact.metadata["operators"] if row["variant"] == "folded"]


def report(artifact: Artifact, figures: Figures, stages: list[tuple[str, float]]) -> dict[str, Any]:
    """One object for --json."""
    return {
        "name": artifact.name,
        "target": artifact.target,
        "directory": artifact.directory,
        "sources": [artifact.directory / source for source in artifact.sources],
        "max_tokens": artifact.max_tokens,
        "folded_qk": _folded(artifact),
        "schedules": artifact.metadata["schedules"],
        "operators": [
            {key: row[key] for key in ("name", "kernel", "schedule", "schedule_origin", "schedule_from")}
            for row in artifact.metadata["operators"]
        ],
        "residual": artifact.metadata.get("residual"),
        "step": artifact.metadata.get("step"),
        "storage": artifact.metadata.get("storage"),
        **figures.to_json(),
        **{key: value for key, value in _quality(artifact).items() if key != "layers"},
        "rows": _quality(artifact).get("layers", []),
        "stages": [{"stage": name, "seconds": round(seconds, 4)} for name, seconds in stages],
    }


def _show_schedules(artifact: Artifact) -> None:
    """Which kernels run by records of the tuner, their own or borrowed, and which by the rules."""
    origins = [row["schedule_origin"] for row in artifact.metadata["operators"]]
    counts = ", ".join(f"{origins.count(origin)} {origin}" for origin in dict.fromkeys(origins))
    console.show(f"Schedules ({artifact.metadata['schedules']}): {counts}")


def _quality_table(layers: list[dict[str, Any]]) -> Any:
    title = "Signal to quantization noise" + (", worst layers" if len(layers) > LAYERS_SHOWN else "")
    table = console.table(title, "layer", "SNR (dB)", right=("SNR (dB)",))
    for layer in sorted(layers, key=lambda layer: layer["snr_db"])[:LAYERS_SHOWN]:
        table.add_row(layer["name"], f"{layer['snr_db']:.1f}")
    return table


def _show_int16(artifact: Artifact) -> None:
    residual = artifact.metadata.get("residual", {})
    if names := residual.get("tensors"):
        shown = ", ".join(names[:LAYERS_SHOWN]) + (", ..." if len(names) > LAYERS_SHOWN else "")
        console.show(
            f"In int16: {shown} ({len(names)} tensors of the arena, each up to {residual['extra_bytes']:,} bytes "
            "larger than in int8)"
        )


def _show_scales(scales: dict[str, str]) -> None:
    """What became of the scales of a model that its author has quantized."""
    if scales:
        kept = sum(found == "kept" for found in scales.values())
        console.show(
            f"Scales of the model: kept for {kept} tensors, made symmetric for {len(scales) - kept} "
            "(operands of products of activations)"
        )


def _show_storage(artifact: Artifact) -> None:
    storage = artifact.metadata.get("storage", {})
    if storage.get("plain_bytes"):
        plain, stored = storage["plain_bytes"], storage["stored_bytes"]
        when = "once, by the init function" if storage["boot"] else "in each run"
        console.show(
            f"Compressed: {plain:,} bytes of weights take {stored:,} bytes of flash ({1 - stored / plain:.1%} less); "
            f"decoded {when}, up to {storage['decoded_bytes']:,} bytes of the arena at a time"
        )


def _show_step(artifact: Artifact) -> None:
    step = artifact.metadata.get("step")
    if step is not None:
        many = f"1 to {step['tokens']}" if step["any_number"] else f"{step['tokens']}"
        end = f"of up to {step['positions']} tokens" if step["positions"] else "without end"
        console.show(
            f"Runs step by step: {many} tokens a call, sequences {end}; {step['state_bytes']:,} bytes of the arena "
            "live from call to call"
        )


def show(artifact: Artifact, figures: Figures, target: Target, *, verbose: bool) -> None:
    """Print what the compiled model takes of the target, how it was made, and how near it is to the float one."""
    from tvmtiny.cli import figures as figures_of
    from tvmtiny.codegen.plan_report import render, summary
    from tvmtiny.codegen.planner import Plan

    plan = Plan.from_json(artifact.metadata["arena"])
    console.show(figures_of.table(figures, target))
    console.show(render(plan) if verbose else f"Memory plan: {summary(plan)}; --verbose shows it")
    if folded := _folded(artifact):
        console.show(f"Q K^T folded into one matrix a head: {', '.join(folded)}")
    _show_schedules(artifact)
    _show_int16(artifact)
    _show_storage(artifact)
    _show_step(artifact)
    quality = _quality(artifact)
    if quality.get("layers"):
        console.show(_quality_table(quality["layers"]))
    _show_scales(quality.get("scales", {}))
    if quality.get("agreement") is not None:
        data = "random inputs" if quality.get("data") == "random" else "calibration samples"
        console.show(f"Same class as the float model: {100 * quality['agreement']:.1f} % of {data}")
    source = quality.get("source", {})
    if "samples" in source:
        console.show(f"Fused float model: within {source['largest_error']:.0e} of the source model")
    elif source:
        console.message(f"The source model could not be run to check the import: {source['not_run']}")
    if quality.get("verification"):
        verification.show(quality["verification"])
    console.show(f"{artifact.name} {figures_of.verdict(figures, target)}")
    console.show(f"C sources: {artifact.directory}  (call it as main.c there does)")
