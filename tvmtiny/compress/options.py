"""What a compressed module asks of `tvmtiny compile`: it travels with the module, through copies and checkpoints."""

from __future__ import annotations

from typing import Any

from torch import nn

_ATTRIBUTE = "tvmtiny_compile_options"


def compile_options(module: nn.Module) -> dict[str, Any]:
    """Keyword arguments of `tvmtiny.compile` that belong to `module`, such as its layers of int4 weights."""
    return dict(getattr(module, _ATTRIBUTE, {}))


def with_options(module: nn.Module, **options: Any) -> nn.Module:
    """`module` itself, with `options` put over those that it has; mappings are merged."""
    known = compile_options(module)
    for name, value in options.items():
        known[name] = {**known.get(name, {}), **value} if isinstance(value, dict) else value
    setattr(module, _ATTRIBUTE, known)
    return module
