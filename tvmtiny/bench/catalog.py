"""The benchmarks: what the TOML files of benchmarks/ describe. docs/benchmarks.md documents their fields."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tvmtiny.errors import UserError
from tvmtiny.resources import data_dir

Figure = Literal["instructions", "instructions_per_element", "cycles", "cycles_per_mac", "arena_bytes"]
"""What a peer's figure counts: per benchmark, or per element or multiply-accumulate of it."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where figures of a peer come from: `title` for tables, `method` how they were obtained."""

    name: str
    title: str
    method: str


@dataclasses.dataclass(frozen=True)
class Peer:
    """What something else needs for the same work.

    Attributes:
        source: who, and how it was measured.
        figure: what is counted.
        by_cpu: core, e.g. "cortex-m4" -> value.
    """

    source: Source
    figure: Figure
    by_cpu: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Something that is measured.

    Attributes:
        name: on the command line.
        description: one line for people.
        peers: figures of others for the same work.
        weights: how the weights are stored (`tvmtiny.options.WEIGHTS`).
    """

    name: str
    description: str
    peers: tuple[Peer, ...] = ()
    weights: str = "int8"

    @property
    def group(self) -> str:
        """The file that describes it: "kernels", "encoders" or "features"."""
        return next(name for name, kind in _GROUPS.items() if isinstance(self, kind))


@dataclasses.dataclass(frozen=True)
class Step:
    """Calls of one micro-kernel `tvmt_<kernel>` on a block of M rows, N cols and depth K (0: without products)."""

    kernel: str
    rows: int
    cols: int
    depth: int = 0
    calls: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all calls."""
        return self.calls * self.rows * self.cols * self.depth

    @property
    def elements(self) -> int:
        """Results of all calls."""
        return self.calls * self.rows * self.cols


@dataclasses.dataclass(frozen=True)
class KernelBenchmark(Benchmark):
    """Micro-kernels, called one after the other; figures are sums over the steps."""

    steps: tuple[Step, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates; 0 for kernels without products."""
        return sum(step.macs for step in self.steps)

    @property
    def elements(self) -> int:
        """Results of all steps."""
        return sum(step.elements for step in self.steps)


@dataclasses.dataclass(frozen=True)
class EncoderBenchmark(Benchmark):
    """An encoder with random weights and ReLU.

    Attributes:
        tokens: S. embedding: E. heads: H. head_dim: P; 0 for E / H. layers: how many.
        hidden: F; 0 for no feed-forward.
        vocabulary: V of token ids with embeddings of tokens and positions; 0 for features (S, E).
        classes: outputs of a linear classifier over the mean; 0 for the result (S, E) of the last layer.
        fold_qk: as in `tvmtiny.compile`.
        norm: whether each sublayer has a residual and a LayerNorm: after it, or before it with `pre_norm`.
        residual: element type of the residual stream, "int8" or "int16".
    """

    tokens: int = 0
    embedding: int = 0
    heads: int = 1
    head_dim: int = 0
    hidden: int = 0
    layers: int = 2
    vocabulary: int = 0
    classes: int = 8
    norm: bool = True
    fold_qk: str = "auto"
    pre_norm: bool = False
    residual: str = "int8"


@dataclasses.dataclass(frozen=True)
class FeatureBenchmark(Benchmark):
    """A front end.

    Attributes:
        features: its description (`tvmtiny.features.spec`).
    """

    features: dict[str, Any] = dataclasses.field(default_factory=dict)


_GROUPS: dict[str, type[Benchmark]] = {
    "kernels": KernelBenchmark,
    "encoders": EncoderBenchmark,
    "features": FeatureBenchmark,
}


def load_catalog() -> list[Benchmark]:
    """Every benchmark, kernels first, in the order of the files."""
    folder = data_dir("benchmarks")
    sources = {
        name: Source(name=name, title=row["title"], method=row["method"].strip())
        for name, row in _read(folder / "peers.toml").items()
    }
    return [
        _benchmark(kind, row, sources)
        for group, kind in _GROUPS.items()
        for row in _read(folder / f"{group}.toml")["benchmark"]
    ]


def select(catalog: Sequence[Benchmark], names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks that `names` choose, in the order of the catalogue; all of them when there are no names.

    A name is that of a benchmark, of a group ("kernels"), of a family ("gemv" for gemv-...), or a pattern with * and ?.
    Raises UserError for a name that chooses none.
    """
    if not names:
        return list(catalog)
    chosen: set[str] = set()
    for name in names:
        found = {item.name for item in catalog if matches(item.name, item.group, name)}
        if not found:
            raise _unknown(catalog, name)
        chosen |= found
    return [item for item in catalog if item.name in chosen]


def matches(benchmark: str, group: str, name: str) -> bool:
    """Whether a name on the command line chooses a benchmark of a group."""
    return name == group or fnmatch.fnmatchcase(benchmark, name) or benchmark.startswith(f"{name}-")


def _unknown(catalog: Sequence[Benchmark], name: str) -> UserError:
    known = [*(item.name for item in catalog), *_GROUPS]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    suggestion = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    return UserError(f"Unknown benchmark {name!r}.", f"{suggestion}`tvmtiny bench --list` shows all of them.")


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _benchmark(kind: type[Benchmark], row: dict[str, Any], sources: dict[str, Source]) -> Benchmark:
    fields = {**row, "peers": tuple(_peer(peer, sources) for peer in row.get("peers", ()))}
    if "steps" in row:
        fields["steps"] = tuple(Step(**step) for step in row["steps"])
    return kind(**fields)


def _peer(row: dict[str, Any], sources: dict[str, Source]) -> Peer:
    by_cpu = {key: float(value) for key, value in row.items() if key.startswith("cortex-")}
    return Peer(sources[row["source"]], row["figure"], by_cpu)
