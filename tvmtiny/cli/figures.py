"""What a compiled model needs and what its board has: the figures that `compile` and `run` report."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tvmtiny.cli import console
from tvmtiny.cli.console import kilobytes

if TYPE_CHECKING:
    from tvmtiny.artifact import Artifact
    from tvmtiny.runner import RunResult
    from tvmtiny.target import Target


@dataclasses.dataclass(frozen=True)
class Figures:
    """Sizes in bytes, and counts of one inference (of `n_tokens` tokens).

    None where the step that tells has not happened: code and stack need a build.
    """

    arena_bytes: int
    arena_available_bytes: int | None
    flash_available_bytes: int | None
    weight_bytes: int | None = None
    table_bytes: int | None = None
    code_bytes: int | None = None
    stack_bytes: int | None = None
    instructions: int | None = None
    n_tokens: int | None = None
    macs: int | None = None

    @property
    def flash_bytes(self) -> int | None:
        """Everything of the model that lies in flash, as far as it is known."""
        parts = [part for part in (self.weight_bytes, self.table_bytes, self.code_bytes) if part is not None]
        return sum(parts) if parts else None

    @property
    def fits(self) -> bool:
        """Whether arena and stack fit the RAM, and weights, tables and code the flash."""
        ram = self.arena_bytes + (self.stack_bytes or 0)
        return all(
            used is None or available is None or used <= available
            for used, available in (
                (ram, self.arena_available_bytes),
                (self.flash_bytes, self.flash_available_bytes),
            )
        )

    def to_json(self) -> dict[str, Any]:
        """The figures under the keys of the command line's contract."""
        return {**dataclasses.asdict(self), "flash_bytes": self.flash_bytes, "fits": self.fits}


def collect(
    artifact: Artifact, target: Target, result: RunResult | None = None, n_tokens: int | None = None
) -> Figures:
    """Put together what the compiler wrote down and what a run on the target's core measured.

    Args:
        n_tokens: of the first sample, whose instructions the run counted.
    """
    known = {key: artifact.metadata.get("figures", {}).get(key) for key in _FROM_METADATA}
    if result is not None:
        known.update({key: getattr(result.sizes, key) for key in _FROM_ELF})
        known.update({key: getattr(result, key) for key in _FROM_RUN if getattr(result, key) is not None})
    return Figures(
        arena_bytes=artifact.arena_bytes,
        arena_available_bytes=target.ram_bytes or None,
        flash_available_bytes=target.flash_bytes or None,
        n_tokens=n_tokens,
        **known,
    )


_FROM_METADATA = ("weight_bytes", "table_bytes", "code_bytes", "stack_bytes", "instructions", "macs")
_FROM_ELF = ("weight_bytes", "table_bytes", "code_bytes")
_FROM_RUN = ("stack_bytes", "instructions")


def _share(used: int, available: int | None) -> tuple[str, str]:
    return (kilobytes(available), f"{100 * used / available:.1f} %") if available else ("", "")


def table(figures: Figures, target: Target) -> Any:
    """Return the table of what is used of what the board has."""
    result = console.table(
        f"On {target.name}", "", "used", "", "available", "share", right=("used", "available", "share")
    )

    def add(name: str, count: int | None, available: int | None = None) -> None:
        if count is not None:
            result.add_row(name, f"{count:,}", "bytes", *_share(count, available))

    add("flash", figures.flash_bytes, figures.flash_available_bytes)
    add("  weights", figures.weight_bytes)
    add("  tables", figures.table_bytes)
    add("  code", figures.code_bytes)
    add("arena (input, output, scratch)", figures.arena_bytes, figures.arena_available_bytes)
    add("stack", figures.stack_bytes)
    if figures.macs is not None:
        result.add_row("multiply-accumulates", f"{figures.macs:,}", "at most")
    if figures.instructions is not None:
        tokens = f"of {figures.n_tokens} tokens" if figures.n_tokens else "per inference"
        result.add_row("instructions", f"{figures.instructions:,}", tokens)
    return result


def verdict(figures: Figures, target: Target) -> str:
    """Return one line of Rich markup: whether the model fits the board."""
    if figures.fits:
        return f"[bold green]fits[/] {target.name}"
    return f"[bold red]does not fit[/] {target.name}"
