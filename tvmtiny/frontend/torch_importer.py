"""TVM's importer of torch.export programs, made to name every Relax variable after its torch module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from tvmtiny.frontend.naming_builder import NamingBuilder
from tvmtiny.passes.name_layers import identifier


class Importer(ExportedProgramImporter):
    """The pin of apache-tvm is exact, so that its internals may be relied upon."""

    @property
    def block_builder(self) -> NamingBuilder:
        """The builder; TVM assigns its own for each program, and a naming one takes its place."""
        return self._builder

    @block_builder.setter
    def block_builder(self, _plain: Any) -> None:
        self._builder = NamingBuilder()

    def create_convert_map(self) -> dict[str, Callable[[fx.Node], Any]]:
        """TVM's converters, each telling the builder first which node it is at."""
        return {name: self._named(convert) for name, convert in super().create_convert_map().items()}

    def _named(self, convert: Callable[[fx.Node], Any]) -> Callable[[fx.Node], Any]:
        def convert_named(node: fx.Node) -> Any:
            self.block_builder.start(layer_name(node))
            return convert(node)

        return convert_named


def layer_name(node: fx.Node) -> str:
    """The path of the innermost module that a node belongs to, e.g. encoder_layers_0_linear1."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return identifier(path or node.name)
