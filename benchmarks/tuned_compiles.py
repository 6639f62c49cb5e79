"""What a compile by records gains and costs: cycles, flash and arena of models, by the rules and by an objective.

    python benchmarks/tuned_compiles.py cortex-m4 cortex-m7 --tuned balanced
    python benchmarks/tuned_compiles.py cortex-m4 --tuned latency --models bert-tiny-32 bert-tiny-128

Cycles are the estimate of `tvmtiny profile`, flash is code, tables and weights of the model in the
firmware. Both are measured only where the schedules of a model differ. Printed as Markdown, a row a model.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tuned_records import ENCODERS, EXAMPLES, ROOT, TARGETS

from tvmtiny.artifact import Artifact
from tvmtiny.bench.catalog import EncoderBenchmark, load_catalog
from tvmtiny.bench.models import calibration, save
from tvmtiny.compiler import compile as compile_model
from tvmtiny.frontend.data import load_samples
from tvmtiny.report.profile import profile
from tvmtiny.schedule.records import OBJECTIVES, RULES
from tvmtiny.tune.results import Cost


def main() -> None:
    """Compile twice, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cores", nargs="+", choices=sorted(TARGETS))
    parser.add_argument("--tuned", choices=OBJECTIVES, default="balanced")
    parser.add_argument("--models", nargs="+", choices=[*EXAMPLES, *ENCODERS], default=[*EXAMPLES, *ENCODERS])
    arguments = parser.parse_args()
    print("| core | model | objective | cycles by the rules | change | flash | arena |")
    print("|---|---|---|---:|---:|---:|---:|")
    for core in arguments.cores:
        for name in arguments.models:
            found = row(name, TARGETS[core], arguments.tuned)
            print(f"| {core} | `{name}` | {arguments.tuned} | {found} |", flush=True)


def row(name: str, target: str, objective: str) -> str:
    """The cells of a model on a target."""
    with tempfile.TemporaryDirectory(prefix="tvmtiny-tuned-") as folder:
        rules, tuned = (compiled(name, target, which, Path(folder) / which) for which in (RULES, objective))
        if schedules(rules) == schedules(tuned):
            return "| the rules' schedules | |"
        before, after = cost(rules, name), cost(tuned, name)
    change = f"{100 * (after.cycles / before.cycles - 1):+.2f} %"
    sizes = f"{after.flash - before.flash:+,} | {after.memory - before.memory:+,}"
    return f"{before.cycles:,} | {change} | {sizes}"


def compiled(name: str, target: str, objective: str, folder: Path) -> Artifact:
    """An example or an encoder."""
    if name in EXAMPLES:
        own = ROOT / "examples" / name
        return compile_model(
            own / "model.onnx",
            target=target,
            calibration=own / "calibration.npz",
            tuned=objective,
            output=folder / name,
        )
    (encoder,) = (one for one in load_catalog() if isinstance(one, EncoderBenchmark) and one.name == name)
    return compile_model(
        save(encoder, folder / "model"),
        target=target,
        calibration=calibration(encoder),
        weights=encoder.weights,
        fold_qk=encoder.fold_qk,
        residual=encoder.residual,
        tuned=objective,
        output=folder / name,
    )


def schedules(artifact: Artifact) -> list[tuple[str, str]]:
    """Of its operators: the loops, and the variant of micro-kernels, which a schedule by rules does not name."""
    rows = artifact.metadata["operators"]
    return [
        (loops_of(one["schedule"], one["microkernel_variant"]), one["microkernel_variant"]) for one in rows
    ]


def loops_of(schedule: str, variant: str) -> str:
    """A schedule in a line (`schedule.space.describe`) without its variant."""
    return schedule.removesuffix(f", {variant}")


def cost(artifact: Artifact, name: str) -> Cost:
    """Of the longest input of the example's calibration or of the encoder's reference vectors, counted in QEMU."""
    own = ROOT / "examples" / name / "calibration.npz"
    samples = load_samples(
        artifact, own if name in EXAMPLES else artifact.directory / "reference" / "inputs.npz"
    )
    found = profile(artifact, max(samples, key=lambda sample: sample.n_tokens), timeout_s=600)
    flash = found.sizes.code_bytes + found.sizes.table_bytes + found.sizes.weight_bytes
    return Cost(found.estimated_cycles, flash, artifact.arena_bytes)


if __name__ == "__main__":
    main()
