"""What a model's program takes in flash, by purpose: from the linker's map and the sections of the ELF."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tvmtiny.artifact import Artifact
from tvmtiny.errors import EnvironmentProblem
from tvmtiny.runner import build, read_sizes
from tvmtiny.target import Target

_MAP_BEGINS = "Linker script and memory map"
_PLACED = re.compile(r"^ (\.\S+)\s+0x[0-9a-f]+\s+0x([0-9a-f]+) out/(\S+)\.o$", re.MULTILINE)
_CODE = (".text", ".tvmt_code")


@dataclasses.dataclass(frozen=True)
class Flash:
    """Bytes of a model in flash; of the harness and the C library nothing.

    Attributes:
        code_bytes, table_bytes, weight_bytes: of the network.
        tokenizer_bytes: code and tables that make ids of text.
        front_end_bytes: code and tables that make features of samples.
    """

    code_bytes: int
    table_bytes: int
    weight_bytes: int
    tokenizer_bytes: int = 0
    front_end_bytes: int = 0

    @property
    def flash_bytes(self) -> int:
        """All of it."""
        return sum(dataclasses.astuple(self))


def flash(artifact: Artifact, target: Target, built: Path | None = None) -> Flash:
    """What all that the model directory has takes on `target`.

    Args:
        built: its program for the target, where that has been built already; else it is built.

    Raises:
        UserError: it does not fit the target.
        EnvironmentProblem: a tool is missing or fails.
    """
    elf = built or _build_whole(artifact, target)
    sizes, placed = read_sizes(elf), _placed(elf.with_suffix(".map"))
    parts = {"tokenizer": _of_tokenizer(artifact), "front_end": _of_front_end(artifact)}
    code, tables = sizes.code_bytes, sizes.table_bytes
    apart = {}
    for part, objects in parts.items():
        own = [(section, size) for (name, section), size in placed.items() if name in objects]
        in_code = sum(size for section, size in own if section.startswith(_CODE))
        in_tables = sum(size for section, size in own if section.startswith(".rodata"))
        code, tables = code - in_code, tables - in_tables
        apart[f"{part}_bytes"] = in_code + in_tables
    return Flash(code, tables, sizes.weight_bytes, **apart)


def _build_whole(artifact: Artifact, target: Target) -> Path:
    """Build the model with its tokenizer or its front end."""
    from tvmtiny.features.device_run import feature_model
    from tvmtiny.tokenizer.text_run import text_model

    if artifact.metadata.get("tokenizer"):
        whole = text_model(artifact)
    elif artifact.metadata.get("features"):
        whole = feature_model(artifact, artifact.metadata["features"])
    else:
        whole = artifact
    return build(whole, target, artifact.directory / "build" / f"flash-{target.name}").elf


def _of_tokenizer(artifact: Artifact) -> set[str]:
    """The objects of the tokenizer, as the map names them."""
    own = {f"{artifact.name}_tokenizer.c", f"{artifact.name}_text.c"}
    return _objects(source for source in artifact.sources if source in own or "tvmt_tokenizer" in source)


def _of_front_end(artifact: Artifact) -> set[str]:
    """The objects of the front end: in the metadata, all sources from the one that runs it."""
    sources, first = artifact.sources, f"{artifact.name}_run_features.c"
    return _objects(sources[sources.index(first) :]) if first in sources else set()


def _objects(sources: Iterable[str]) -> set[str]:
    return {f"model/{source.removesuffix('.c')}" for source in sources}


def _placed(path: Path) -> Counter[tuple[str, str]]:
    """Bytes by object and input section that a program consists of, from the map of GNU ld."""
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    _, found, body = text.partition(_MAP_BEGINS)
    if not found:
        raise EnvironmentProblem(f"{path} is no map of GNU ld.", "Link with the GNU toolchain for Arm.")
    sizes: Counter[tuple[str, str]] = Counter()
    for section, size, name in _PLACED.findall(body):
        sizes[name, section] += int(size, 16)
    return sizes
