"""The figures of benchmarks: a row for each benchmark and target, and the JSON that holds them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvmtiny import __version__
from tvmtiny.bench.catalog import Benchmark, Peer
from tvmtiny.codegen.directory import write_whole
from tvmtiny.errors import UserError
from tvmtiny.target import Target

FORMAT = 1
"""Of the JSON; to be raised when older files can no longer be compared."""


@dataclasses.dataclass(frozen=True)
class PeerFigure:
    """A peer's figure for the core of a row.

    Attributes:
        title, method: who, and how it was obtained.
        figure: what is counted, as in benchmarks/.
        value, own: the figure of the peer, and of the row.
    """

    source: str
    title: str
    method: str
    figure: str
    value: float
    own: float

    @property
    def ratio(self) -> float:
        """The peer's figure divided by the row's; above 1 where the row needs less."""
        return self.value / self.own


@dataclasses.dataclass(frozen=True)
class Row:
    """What a benchmark needs on a target; None where a figure does not exist or is not known.

    Attributes:
        macs: multiply-accumulates; None for kernels without products.
        elements: results of a kernel, or of a front end in a second; None for encoders.
        instructions: exact; of a front end, for a second of its input.
        estimated_cycles: by report/cycles.py.
        latency_ms: of these cycles at the target's clock.
        arena_bytes, code_bytes, table_bytes, weight_bytes, stack_bytes: of an encoder; the first, the state less its
            rows, and the next two also of a front end.
    """

    name: str
    group: str
    target: str
    cpu: str
    instructions: int
    estimated_cycles: int
    latency_ms: float | None
    macs: int | None = None
    elements: int | None = None
    arena_bytes: int | None = None
    code_bytes: int | None = None
    table_bytes: int | None = None
    weight_bytes: int | None = None
    stack_bytes: int | None = None
    peers: tuple[PeerFigure, ...] = ()

    @property
    def flash_bytes(self) -> int | None:
        """Code, tables and weights."""
        parts = (self.code_bytes, self.table_bytes, self.weight_bytes)
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    @property
    def units(self) -> int | None:
        """What instructions and cycles are divided by: multiply-accumulates, or elements where there are none."""
        return self.macs or self.elements

    def per_unit(self, count: float) -> float | None:
        """A count for one multiply-accumulate or element."""
        return count / self.units if self.units else None

    def to_json(self) -> dict[str, Any]:
        """Every figure, and those that follow from them."""
        return {
            **dataclasses.asdict(self),
            "peers": [{**dataclasses.asdict(peer), "ratio": peer.ratio} for peer in self.peers],
            "flash_bytes": self.flash_bytes,
            "instructions_per_mac": self.instructions / self.macs if self.macs else None,
            "estimated_cycles_per_mac": self.estimated_cycles / self.macs if self.macs else None,
            "instructions_per_element": self.instructions / self.elements if self.elements else None,
            "estimated_cycles_per_element": self.estimated_cycles / self.elements if self.elements else None,
        }


def row(
    benchmark: Benchmark, target: Target, *, instructions: int, estimated_cycles: int, **figures: Any
) -> Row:
    """A row with its latency and the peers that have a figure for the core."""
    clock = target.clock_hz
    bare = Row(
        name=benchmark.name,
        group=benchmark.group,
        target=target.name,
        cpu=target.cpu,
        instructions=instructions,
        estimated_cycles=estimated_cycles,
        latency_ms=1000 * estimated_cycles / clock if clock else None,
        **figures,
    )
    peers = tuple(_peer_figure(bare, peer) for peer in benchmark.peers if target.cpu in peer.by_cpu)
    return dataclasses.replace(bare, peers=peers)


def _peer_figure(row: Row, peer: Peer) -> PeerFigure:
    own = {
        "instructions": row.instructions,
        "instructions_per_element": row.instructions / row.elements if row.elements else None,
        "cycles": row.estimated_cycles,
        "cycles_per_mac": row.estimated_cycles / row.macs if row.macs else None,
        "arena_bytes": row.arena_bytes,
    }[peer.figure]
    assert own, f"{row.name} has no {peer.figure} to compare with"
    source = peer.source
    return PeerFigure(source.name, source.title, source.method, peer.figure, peer.by_cpu[row.cpu], own)


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A benchmark that a target cannot run, and why."""

    name: str
    target: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Report:
    """What one call of `tvmtiny bench` measured.

    Attributes:
        compiler: the C compiler, for whose code the figures hold.
        version: of tvmtiny.
    """

    rows: tuple[Row, ...]
    skipped: tuple[Skipped, ...]
    compiler: str
    version: str = __version__

    def to_json(self) -> dict[str, Any]:
        """One object, as --json prints it and --save writes it."""
        return {
            "format": FORMAT,
            "version": self.version,
            "compiler": self.compiler,
            "rows": [item.to_json() for item in self.rows],
            "skipped": [dataclasses.asdict(item) for item in self.skipped],
        }

    def save(self, path: Path) -> None:
        """Write the report as JSON; raises UserError when the file cannot be written."""
        try:
            write_whole(path, (json.dumps(self.to_json(), indent=1) + "\n").encode())
        except OSError as error:
            raise UserError(
                f"Cannot write {path}: {error.strerror}.", "Give another file with --save."
            ) from error


def load(path: Path) -> Report:
    """Read what `Report.save` wrote; raises UserError when the file is something else."""
    remedy = "Give a file that `tvmtiny bench --save FILE` wrote."
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", remedy) from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}", remedy) from error
    if not isinstance(data, dict) or "format" not in data:
        raise UserError(f"{path} holds no figures of benchmarks.", remedy)
    if data["format"] != FORMAT:
        raise UserError(
            f"{path} has format {data['format']}, this version of tvmtiny reads {FORMAT}.",
            "Measure what it holds again, with --save.",
        )
    try:
        rows = tuple(_read_row(item) for item in data["rows"])
        return Report(rows, (), str(data["compiler"]), str(data["version"]))
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} lacks a field: {error}", remedy) from error


def _read_row(data: dict[str, Any]) -> Row:
    """A row without its peers, which a comparison does not need."""
    names = [field.name for field in dataclasses.fields(Row) if field.name != "peers"]
    return Row(**{name: data[name] for name in names})


def by_place(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """Rows by benchmark and target."""
    return {(item.name, item.target): item for item in rows}
