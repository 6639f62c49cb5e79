"""What passes through the modules of a network, by their names."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from tvmtiny.errors import UserError


class Observer:
    """Context in which the outputs of modules are kept, those of the last forward.

    Attributes:
        outputs: by module name: the result, of several the first.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        self.outputs: dict[str, Tensor] = {}
        self._modules = {name: submodule(network, name) for name in names}
        self._handles: list[Any] = []

    def __enter__(self) -> Observer:
        self._handles = [m.register_forward_hook(self._keep(name)) for name, m in self._modules.items()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def keep(_module: nn.Module, _arguments: tuple[Any, ...], result: Any) -> None:
            self.outputs[name] = result if isinstance(result, Tensor) else result[0]

        return keep


def submodule(network: nn.Module, name: str) -> nn.Module:
    """A module by its name in `network`; raises UserError with the nearest names when there is none."""
    modules = dict(network.named_modules())
    if name not in modules:
        near = difflib.get_close_matches(name, [known for known in modules if known], 3, 0.3)
        raise UserError(
            f"{type(network).__name__} has no module '{name}'.",
            f"Near names: {', '.join(near)}." if near else "network.named_modules() lists them.",
        )
    return modules[name]
