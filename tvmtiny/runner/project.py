"""A directory that builds a model's program with `make`: copies of the C, linker scripts and a Makefile.

The directory stands alone: nothing in it points outside, and it needs only `make` and a compiler. Files are
written only when their content changes, so that `make` rebuilds no more than it must.

What is special of a kind of project (its links, its macros) its handler says: microtvm_projects/<kind>/handler.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2

from tvmtiny import __version__
from tvmtiny.artifact import Artifact
from tvmtiny.errors import UserError
from tvmtiny.resources import data_dir
from tvmtiny.runner.layout import Placement
from tvmtiny.target import HOST, Target
from tvmtiny.templates import jinja_environment

ELF = "out/firmware.elf"
EMULATED_ELF = "out/firmware-qemu.elf"
SERIAL_ELF = "out/firmware-serial.elf"
BOARD_SCRIPT = "board.ld"
EMULATED_SCRIPT = "qemu.ld"

# Bytes checked on either side of the arena: a page on the host, little where RAM is scarce.
DEVICE_GUARD_BYTES = 64
HOST_GUARD_BYTES = 4096

_MODEL = "model"
_COMMON = "common"
_PORT = "port"
HARNESS = ("harness.c", "tvmt_frame.c", "tvmt_link.c")


@dataclasses.dataclass(frozen=True)
class Link:
    """One program of a project.

    Attributes:
        elf: where it goes, relative to the project.
        sources: files of the kind's folder that belong to this program and not to every one.
        script: linker script, relative to the project; "" for the compiler's own.
        placement: regions of that script.
        title: what the script's memory map is.
    """

    elf: str
    sources: tuple[str, ...]
    script: str = ""
    placement: Placement | None = None
    title: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a kind of project makes of a model and a target.

    Attributes:
        links: the program for the target itself first.
        run_elf: which of them this machine can execute, on files of requests and answers.
        serial_elf: which of them this machine can execute, on a line of bytes.
        sources: files of the kind's folder that belong to every program.
        defines: macros, besides those of the harness.
        saved_bytes: memory for a copy of the inputs.
    """

    links: tuple[Link, ...]
    run_elf: str
    serial_elf: str
    sources: tuple[str, ...]
    defines: dict[str, str]
    saved_bytes: int


@dataclasses.dataclass(frozen=True)
class Project:
    """A generated project.

    Attributes:
        directory: where `make` is called.
        target: whose memory and core it is for.
        elf: the program for the target itself.
        run_elf: the program that this machine can execute: the one for QEMU, or `elf`.
        serial_elf: the one that serves the link on a line: an emulated serial port, or standard input and output.
        model_id: what its firmware says of its model.
    """

    directory: Path
    target: Target
    elf: Path
    run_elf: Path
    serial_elf: Path
    model_id: str


def write_project(artifact: Artifact, target: Target, directory: Path, *, debug: bool = False) -> Project:
    """Write the project of `artifact` for `target` to `directory`, over an older one.

    Args:
        debug: the firmware shows its arena and stops after operators when asked to: it gives away raw inputs.

    Raises UserError when arena and stack do not fit the target's RAM.
    """
    from tvmtiny.project import load_make_kind

    plan = load_make_kind(target.project).plan(artifact, target)
    model_sources, model_folders = _copy_model(artifact, directory / _MODEL)
    port = data_dir(f"microtvm_projects/{target.project}")
    common = data_dir(f"microtvm_projects/{_COMMON}")
    headers = [path for path in common.iterdir() if path.suffix == ".h"]
    port_files = [path for path in sorted(port.rglob("*.[ch]")) if _chosen(path.relative_to(port), plan)]
    sources = [
        *model_sources,
        *_copy([*headers, *(common / name for name in HARNESS)], common, directory, _COMMON),
        *_copy(port_files, port, directory, _PORT),
    ]
    identity = model_id(artifact)
    context = {
        "model": artifact.name,
        "target": target,
        "sources": sources,
        "include_dirs": [*model_folders, _COMMON, _PORT],
        "defines": {**harness_defines(artifact, target, plan.saved_bytes, debug=debug), **plan.defines},
        "links": [(link, _objects(link, plan, sources)) for link in plan.links],
    }
    environment = _environment(port)
    _write(directory / "Makefile", environment.get_template("Makefile.j2").render(context))
    for link in plan.links:
        if link.placement:
            script = environment.get_template("linker.ld.j2").render(
                target=target, placement=link.placement, title=link.title
            )
            _write(directory / link.script, script)
    elf = directory / plan.links[0].elf
    return Project(directory, target, elf, directory / plan.run_elf, directory / plan.serial_elf, identity)


def model_id(artifact: Artifact) -> str:
    """16 hexadecimal digits that tell a compiled model from every other: of its sources, weights included."""
    digest = hashlib.sha256(f"{artifact.name}\n".encode())
    for name in artifact.sources:
        content = (artifact.directory / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def guard_bytes(artifact: Artifact, target: Target) -> int:
    """A multiple of the arena's alignment, so that the arena behind the first guard is aligned."""
    least = HOST_GUARD_BYTES if target.cpu == HOST else DEVICE_GUARD_BYTES
    return max(least, artifact.arena_align)


def input_bytes(artifact: Artifact) -> int:
    """Bytes of all inputs."""
    return sum(tensor.bytes for tensor in artifact.inputs)


def _chosen(path: Path, plan: Plan) -> bool:
    linked = {*plan.sources, *(source for link in plan.links for source in link.sources)}
    return path.suffix == ".h" or path.as_posix() in linked


def _objects(link: Link, plan: Plan, sources: list[str]) -> list[str]:
    """The sources that `link` consists of: all but those of other links alone."""
    others = {f"{_PORT}/{source}" for other in plan.links for source in other.sources}
    own = {f"{_PORT}/{source}" for source in link.sources}
    return [source for source in sources if source not in others or source in own]


def harness_defines(
    artifact: Artifact, target: Target, saved_bytes: int, *, debug: bool
) -> dict[str, str | None]:
    """Macros of the harness (common/harness.c says what they are); None: defined without a value."""
    numbers = ",".join(f"0x{byte:02x}" for byte in bytes.fromhex(model_id(artifact)))
    defines: dict[str, str | None] = {
        "TVMT_MODEL": f"{artifact.name}_model",
        "TVMT_MODEL_ID": f"{{{numbers}}}",
        "TVMT_TARGET": f'"{target_macro(target)}"',
        "TVMT_VERSION": f'"{_plain(__version__)}"',
        "TVMT_ARENA_BYTES": f"{artifact.arena_bytes}u",
        "TVMT_ARENA_ALIGN": f"{artifact.arena_align}u",
        "TVMT_GUARD_BYTES": f"{guard_bytes(artifact, target)}u",
        "TVMT_SAVED_BYTES": f"{saved_bytes}u",
    }
    return {**defines, "TVMT_LINK_DEBUG": None} if debug else defines


def target_macro(target: Target) -> str:
    """The target's name as firmware says it: at most 39 plain characters (tvmt_link.c)."""
    return _plain(target.name)[:39]


def _plain(text: str) -> str:
    """`text` without what would end a string of C, of make or of the shell."""
    return re.sub(r"[^\w.+-]", "_", text, flags=re.ASCII)


def _copy_model(artifact: Artifact, to: Path) -> tuple[list[str], list[str]]:
    """Copy the model's sources and headers; returns sources and include folders relative to the project."""
    missing = [name for name in artifact.sources if not (artifact.directory / name).is_file()]
    if missing:
        raise UserError(
            f"{artifact.directory} lacks {', '.join(missing)}, which its metadata names.",
            "Compile the model again.",
        )
    folders = [artifact.directory / folder for folder in artifact.include_dirs]
    headers = [path for folder in folders for path in folder.glob("*.h")]
    # Those of further variants of micro-kernels: in folders of their own.
    headers += sorted((artifact.directory / "include").glob("*/*.h"))
    for path in (*(artifact.directory / name for name in artifact.sources), *headers):
        relative = path.relative_to(artifact.directory)
        _write(to / relative, path.read_bytes())
    relative_folders = [(Path(_MODEL) / folder).as_posix() for folder in artifact.include_dirs]
    return [f"{_MODEL}/{name}" for name in artifact.sources], relative_folders


def _copy(files: Iterable[Path], root: Path, directory: Path, folder: str) -> list[str]:
    """Copy `files` of `root` to a folder of the project; returns the C sources among them, relative to the project."""
    sources = []
    for path in files:
        name = f"{folder}/{path.relative_to(root).as_posix()}"
        _write(directory / name, path.read_bytes())
        if path.suffix == ".c":
            sources.append(name)
    return sources


def _environment(port: Path) -> jinja2.Environment:
    environment = jinja_environment(port)
    environment.filters["object"] = _object
    return environment


def _object(source: str) -> str:
    """The object file of a source."""
    return f"out/{source[:-2]}.o"


def _write(path: Path, content: str | bytes) -> None:
    data: Any = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
