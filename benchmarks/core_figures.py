"""Fits the figures of benchmarks/cores.toml, from which `tvmtiny inspect` estimates cycles and code of a model.

    python benchmarks/core_figures.py > benchmarks/cores.toml

Encoders of benchmarks/encoders.toml are compiled for a target with each core and profiled in QEMU. A non-negative
least-squares fit over their operators gives the cycles, one over the encoders the bytes of code. An encoder with 32
distinct integers in each matrix gives the cycles of the decoders. Takes minutes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import tvm

from tvmtiny.artifact import Artifact
from tvmtiny.bench.catalog import EncoderBenchmark, load_catalog, select
from tvmtiny.bench.models import INPUT, calibration, save, with_few_integers
from tvmtiny.compiler import compile as compile_model
from tvmtiny.kernels import kernel_calls, kernels
from tvmtiny.report.estimate import Work, work
from tvmtiny.report.profile import Profile, profile
from tvmtiny.runner import Sample
from tvmtiny.verify import INTEGER_MODULE

ENCODERS = ("enc32", "bert-tiny-32", "bert-tiny-128", "pre-norm-32", "mhsa-coins", "mhsa-coins-unfolded")
CLUSTERED, CLUSTERS = "enc32", 32
DECODERS = {"packed": "unpack", "huffman": "huffman"}
TARGETS = ("qemu-m0-large", "rp2040", "qemu-m3", "qemu-m4", "qemu-m7", "qemu-m33", "qemu-m55")

Array = npt.NDArray[np.float64]
HEADER = """\
# What `tvmtiny inspect` estimates a core to take: cycles a multiply-accumulate, attention score and element of a
# result, bytes of code and tables a model and an operator; the largest relative errors over the encoders of the fit;
# cycles a weight that is decoded, of matrices with 32 distinct integers.
# Written by: python benchmarks/core_figures.py, with the cycle model of tvmtiny profile. No board was measured.\
"""


def measure(encoder: EncoderBenchmark, target: str, directory: Path) -> tuple[Profile, list[Work]]:
    """Profile an encoder with all of its tokens, and say what its operators compute."""
    artifact = compile_model(
        save(encoder, directory),
        target=target,
        calibration=calibration(encoder),
        range_method="minmax",
        output=directory / encoder.name,
    )
    kernels()  # registers the operators of the module
    module = tvm.ir.load_json((artifact.directory / INTEGER_MODULE).read_text("utf-8"))
    rows = [work(kernel, operands, encoder.tokens) for _, kernel, operands in kernel_calls(module)]
    return profile_full(artifact, encoder), rows


def profile_full(artifact: Artifact, encoder: EncoderBenchmark) -> Profile:
    """The profile of a reference input with all tokens."""
    with np.load(artifact.directory / "reference" / "inputs.npz") as inputs:
        sample = Sample({INPUT: inputs[INPUT][0]}, encoder.tokens)
    return profile(artifact, sample, timeout_s=600)


def decoding(encoder: EncoderBenchmark, target: str, directory: Path) -> dict[str, float]:
    """The fields of one core that say what a decoder takes for a weight."""
    model = onnx.load(save(encoder, directory))
    onnx.save(with_few_integers(model, CLUSTERS), directory / "few.onnx")
    figures = {}
    for form, kernel in DECODERS.items():
        artifact = compile_model(
            directory / "few.onnx",
            target=target,
            calibration=calibration(encoder),
            range_method="minmax",
            compress_weights=form,
            decode="tile",
            output=directory / form,
        )
        sizes = {row["name"]: row["bytes"] for row in artifact.metadata["arena"]["plan"]}
        rows = [row for row in profile_full(artifact, encoder).operators if row.kernel == kernel]
        cycles = sum(row.estimated_cycles for row in rows) / sum(sizes[row.name] for row in rows)
        figures[f"cycles_per_{kernel}_weight"] = round(cycles, 1)
    return figures


def fit(columns: Sequence[Sequence[float]], values: Sequence[float]) -> Array:
    """Coefficients >= 0 with the least squares of relative errors; a row a value.

    Columns that would get a negative coefficient are left out, the most negative first.
    """
    matrix, target = np.asarray(columns, float), np.asarray(values, float)
    weights = 1 / np.sqrt(target)
    kept = list(range(matrix.shape[1]))
    while True:
        found = np.linalg.lstsq(matrix[:, kept] * weights[:, None], target * weights, rcond=None)[0]
        if found.min() >= 0:
            result = np.zeros(matrix.shape[1])
            result[kept] = found
            return result
        kept.pop(int(found.argmin()))


def figures(measured: Sequence[tuple[Profile, list[Work]]]) -> dict[str, float]:
    """The fields of one core."""
    operators = [
        ((row.macs, row.scores, row.elements), operator.estimated_cycles)
        for found, rows in measured
        for row, operator in zip(rows, found.operators[1:], strict=True)
    ]
    cycles = fit([row for row, _ in operators], [value for _, value in operators])
    whole = [
        (np.sum([(r.macs, r.scores, r.elements) for r in rows], axis=0) @ cycles, found.estimated_cycles)
        for found, rows in measured
    ]
    sizes = [found.sizes.code_bytes + found.sizes.table_bytes for found, _ in measured]
    counts = [(1, len(rows)) for _, rows in measured]
    code = np.ceil(fit(counts, sizes))
    return {
        "cycles_per_mac": round(float(cycles[0]), 3),
        "cycles_per_score": round(float(cycles[1]), 2),
        "cycles_per_element": round(float(cycles[2]), 1),
        "cycles_error": round(max(abs(float(a) / b - 1) for a, b in whole), 3),
        "code_bytes": int(code[0]),
        "code_bytes_per_operator": int(code[1]),
        "code_error": round(
            max(abs(float(np.dot(c, code)) / s - 1) for c, s in zip(counts, sizes, strict=True)), 3
        ),
    }


def main() -> None:
    """Print the file."""
    encoders = [item for item in select(load_catalog(), ENCODERS) if item.name in ENCODERS]
    print(HEADER)
    for target in TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            measured = []
            for encoder in encoders:
                assert isinstance(encoder, EncoderBenchmark)
                print(f"{encoder.name} on {target}", file=sys.stderr)
                measured.append(measure(encoder, target, Path(folder)))
                if encoder.name == CLUSTERED:
                    decoded = decoding(encoder, target, Path(folder))
        print(f"\n[{measured[0][0].target.cpu}]")
        for name, value in (figures(measured) | decoded).items():
            print(f"{name} = {value}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
