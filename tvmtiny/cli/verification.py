"""What `tvmtiny compile --verify` prints: float and integer model side by side, and the layers that lose most."""

from __future__ import annotations

from typing import Any

from tvmtiny.cli import console

LAYERS_SHOWN = 8


def show(found: dict[str, Any]) -> None:
    """Print `quality.verification` of a model's metadata."""
    console.show(_layers(found["layers"]), _summary(found))
    for row in found["advice"]:
        console.show_plain(f"- {', '.join(row['layers'])}: {row['message']}")
    if not found["advice"]:
        console.show("No layer loses so much that a remedy is called for.")


def _layers(layers: list[dict[str, Any]]) -> Any:
    """The layers that lose most, the worst first."""
    numbers = ("SNR (dB)", "lost here (dB)", "out of range")
    title = "Verification" + (", layers that lose most" if len(layers) > LAYERS_SHOWN else "")
    table = console.table(title, "layer", *numbers, right=numbers)
    for row in sorted(layers, key=lambda row: row["lost_db"], reverse=True)[:LAYERS_SHOWN]:
        table.add_row(
            row["name"], f"{row['snr_db']:.1f}", f"{row['lost_db']:.1f}", f"{100 * row['clipped']:.2f} %"
        )
    return table


def _summary(found: dict[str, Any]) -> str:
    accuracy, samples = found["accuracy"], found["samples"]
    agreement = f"same class {100 * found['agreement']:.2f} %, mean cosine {found['cosine']:.4f}"
    if accuracy is None:
        return f"On {samples} samples without labels: {agreement}"
    return (
        f"On {samples} samples: accuracy {100 * accuracy['float']:.2f} % as float, "
        f"{100 * accuracy['integer']:.2f} % as integers ({agreement})"
    )
