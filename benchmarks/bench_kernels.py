"""Single micro-kernels on emulated cores, beside TensorFlow Lite for Microcontrollers with CMSIS-NN.

    python benchmarks/bench_kernels.py [--targets qemu-m4 qemu-m7]

Instructions are counted by QEMU and repeat exactly for one compiler, calls included. The peer's figures were measured
in the same way on the same emulated machines (arm-none-eabi-gcc 12.2, -O3, QEMU 7.2).
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.resources import data_dir
from tvmtiny.runner import Sample, run
from tvmtiny.schedule.microkernels import headers
from tvmtiny.schedule.rules import family
from tvmtiny.target import load_target

KERNELS = (
    "dense_s8",
    "dense_s32",
    "scores_s32",
    "values_s8",
    "softmax_u8",
    "layer_norm_s8",
    "add_residual_s32",
    "requantize_s32_s8",
    "lookup_s8",
)
"""In the order of kernels.c."""

PRODUCTS = KERNELS[:4]
SEED = 2026
SPREAD = 1000.0
"""Standard deviation of sums and scores: what is data dependent is how often a maximum or a residual saturates."""

_CALL_WORDS, _OPERAND_WORDS, _ARENA_BYTES = 8, 16384, 524288


@dataclasses.dataclass(frozen=True)
class Work:
    """Calls of one kernel.

    Attributes:
        calls: how many, one a head.
        peer: instructions of TFLM with CMSIS-NN by target; for a kernel without products, an element.
    """

    kernel: str
    rows: int
    cols: int
    depth: int = 1
    calls: int = 1
    peer: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """E.g. "dense_s8 32x64x64"."""
        sizes = (self.rows, self.cols, self.depth) if self.kernel in PRODUCTS else (self.rows, self.cols)
        return f"{f'{self.calls} ' if self.calls > 1 else ''}{self.kernel} {'x'.join(map(str, sizes))}"

    @property
    def units(self) -> int:
        """Multiply-accumulates, or elements where there are none."""
        return self.calls * self.rows * self.cols * self.depth


def _peer(m4: float, m7: float) -> dict[str, float]:
    return {"qemu-m4": m4, "qemu-m7": m7}


WORK = (
    Work("dense_s8", 32, 64, 64, peer=_peer(284_017, 279_469)),
    Work("dense_s8", 32, 256, 64, peer=_peer(1_135_633, 1_117_453)),
    Work("dense_s8", 32, 64, 256, peer=_peer(879_985, 863_149)),
    Work("dense_s8", 64, 128, 128, peer=_peer(1_876_561, 1_841_869)),
    Work("dense_s8", 64, 512, 128, peer=_peer(7_505_809, 7_367_053)),
    Work("dense_s8", 128, 64, 64, peer=_peer(1_091_953, 1_073_581)),
    Work("dense_s8", 1, 64, 64, peer=_peer(10_974, 10_991)),
    Work("dense_s32", 32, 64, 64),
    Work("scores_s32", 32, 32, 16, 4, peer=_peer(338_195, 339_364)),
    Work("scores_s32", 128, 128, 16, 4, peer=_peer(5_247_533, 5_264_548)),
    Work("values_s8", 32, 16, 32, 4, peer=_peer(237_356, 237_988)),
    Work("values_s8", 128, 16, 128, 4, peer=_peer(2_423_518, 2_426_020)),
    Work("softmax_u8", 32, 32, peer=_peer(528, 528)),
    Work("softmax_u8", 128, 128, peer=_peer(528, 528)),
    Work("layer_norm_s8", 32, 64, peer=_peer(571, 571)),
    Work("add_residual_s32", 32, 64, peer=_peer(81, 81)),
    Work("requantize_s32_s8", 32, 64),
    Work("lookup_s8", 32, 256),
)


def write_model(directory: Path, target: str) -> Artifact:
    """kernels.c with the micro-kernels of a target, as a model."""
    include = directory / "include"
    include.mkdir(parents=True, exist_ok=True)
    for name, text in headers({f"tvmt_{kernel}" for kernel in KERNELS}, family(load_target(target))).items():
        (include / name).write_text(text)
    shutil.copy(data_dir("microtvm_projects/common") / "tvmt_model.h", include)
    shutil.copy(Path(__file__).parent / "kernels.c", directory)
    words = _CALL_WORDS + _OPERAND_WORDS
    tensor = TensorInfo("call", "features", "int32", (words,), 0, 4 * words)
    return Artifact(
        directory=directory,
        name="kernels",
        target=target,
        inputs=(tensor,),
        outputs=(tensor,),
        max_tokens=1,
        has_length=False,
        arena_bytes=_ARENA_BYTES,
        arena_align=16,
        sources=("kernels.c",),
        include_dirs=("include",),
        metadata={},
    )


def count(target: str, work: Sequence[Work], directory: Path) -> list[float]:
    """Instructions a MAC (or element) of each work."""
    artifact = write_model(directory, target)
    counts = []
    for item in work:
        call = [KERNELS.index(item.kernel), item.rows, item.cols, item.depth, item.calls]
        operand = np.random.default_rng(SEED).normal(0, SPREAD, _OPERAND_WORDS).astype(np.int32)
        words = np.concatenate([np.resize(np.array(call, np.int32), _CALL_WORDS), operand])
        result = run(artifact, "qemu", [Sample({"call": words}, 1)])
        assert result.instructions is not None
        counts.append(result.instructions / item.units)
    return counts


def main() -> None:
    """Print a row a kernel and target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--targets", nargs="+", default=["qemu-m4", "qemu-m7"])
    options = parser.parse_args()
    table = Table(title="Micro-kernels: instructions a MAC (an element where there are no products)")
    table.add_column("kernel")
    for target in options.targets:
        for column in (target, "TFLM", "ratio"):
            table.add_column(column, justify="right")
    columns = []
    for target in options.targets:
        with tempfile.TemporaryDirectory() as directory:
            columns.append(count(target, WORK, Path(directory)))
    for index, item in enumerate(WORK):
        cells = []
        for target, counts in zip(options.targets, columns, strict=True):
            peer = item.peer.get(target, 0.0)
            each = peer / item.units if item.kernel in PRODUCTS else peer
            ratio = f"{each / counts[index]:.2f}" if peer else ""
            cells += [f"{counts[index]:.3f}", f"{each:.2f}" if peer else "", ratio]
        table.add_row(item.name, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
