"""A directory that builds a model's program with `make`: copies of the C, linker scripts and a Makefile.

The directory stands alone: nothing in it points outside, and it needs only `make` and a compiler. Files are
written only when their content changes, so that `make` rebuilds no more than it must.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import jinja2

from tvmtiny.artifact import Artifact
from tvmtiny.errors import UserError
from tvmtiny.resources import data_dir
from tvmtiny.runner.layout import Placement, place, translate
from tvmtiny.target import HOST, Target

ELF = "out/firmware.elf"
EMULATED_ELF = "out/firmware-qemu.elf"
BOARD_SCRIPT = "board.ld"
EMULATED_SCRIPT = "qemu.ld"

# Bytes checked on either side of the arena: a page on the host, little where RAM is scarce.
DEVICE_GUARD_BYTES = 64
HOST_GUARD_BYTES = 4096

_MODEL = "model"
_COMMON = "common"
_PORT = "port"


@dataclasses.dataclass(frozen=True)
class Project:
    """A generated project.

    Attributes:
        directory: where `make` is called.
        target: whose memory and core it is for.
        elf: the program for the target itself.
        run_elf: the program that this machine can execute: the one for QEMU, or `elf`.
    """

    directory: Path
    target: Target
    elf: Path
    run_elf: Path


@dataclasses.dataclass(frozen=True)
class _Link:
    elf: str
    script: str
    placement: Placement | None
    title: str


def write_project(artifact: Artifact, target: Target, directory: Path) -> Project:
    """Write the project of `artifact` for `target` to `directory`, over an older one.

    Raises UserError when arena and stack do not fit the target's RAM.
    """
    links = _host_links() if target.cpu == HOST else _device_links(artifact, target)
    model_sources, model_folders = _copy_model(artifact, directory / _MODEL)
    port = data_dir(f"microtvm_projects/{target.project}")
    transport = "transport_stdio.c" if target.cpu == HOST else "transport_semihosting.c"
    common = data_dir(f"microtvm_projects/{_COMMON}")
    chosen = [path for path in common.iterdir() if path.suffix == ".h"]
    sources = [
        *model_sources,
        *_copy([*chosen, common / "harness.c", common / transport], directory, _COMMON),
        *_copy(sorted(port.glob("*.[ch]")), directory, _PORT),
    ]
    context = {
        "model": artifact.name,
        "target": target,
        "sources": sources,
        "include_dirs": [*model_folders, _COMMON],
        "defines": _defines(artifact, target),
        "links": links,
        "two_maps": len(links) > 1,
    }
    environment = _environment(port)
    _write(directory / "Makefile", environment.get_template("Makefile.j2").render(context))
    for link in links:
        if link.placement:
            script = environment.get_template("linker.ld.j2").render(
                target=target, placement=link.placement, title=link.title
            )
            _write(directory / link.script, script)
    return Project(directory, target, directory / links[0].elf, directory / links[-1].elf)


def _host_links() -> list[_Link]:
    return [_Link(ELF, "", None, "")]


def _device_links(artifact: Artifact, target: Target) -> list[_Link]:
    """The board's own link first, the one that QEMU executes last."""
    alignment = max(artifact.arena_align, 16)
    arena_bytes = -(-artifact.arena_bytes // alignment) * alignment + 2 * _guard_bytes(artifact, target)
    placement = place(target, arena_bytes)
    if target.qemu_machine:
        return [_Link(ELF, EMULATED_SCRIPT, placement, f"Memory map of {target.name}.")]
    links = [_Link(ELF, BOARD_SCRIPT, placement, f"Memory map of {target.name}.")]
    if target.emulated_by:
        machine = target.emulator()
        title = f"Memory of {target.name} at addresses of {machine.name} (QEMU {machine.qemu_machine})."
        links.append(_Link(EMULATED_ELF, EMULATED_SCRIPT, translate(placement, target, machine), title))
    return links


def _guard_bytes(artifact: Artifact, target: Target) -> int:
    """A multiple of the arena's alignment, so that the arena behind the first guard is aligned."""
    least = HOST_GUARD_BYTES if target.cpu == HOST else DEVICE_GUARD_BYTES
    return max(least, artifact.arena_align)


def _defines(artifact: Artifact, target: Target) -> dict[str, str]:
    """Macros of the build: the harness's, and where the model's weights and hot code go."""
    defines = {
        "TVMT_MODEL": f"{artifact.name}_model",
        "TVMT_ARENA_BYTES": f"{artifact.arena_bytes}u",
        "TVMT_ARENA_ALIGN": f"{artifact.arena_align}u",
        "TVMT_GUARD_BYTES": f"{_guard_bytes(artifact, target)}u",
    }
    if target.cpu != HOST:
        defines["TVMT_ARENA_SECTION"] = '".tvmt_arena"'
        defines["TVMT_WEIGHTS_SECTION"] = '__attribute__((section(".tvmt_weights")))'
        if target.code_ram:
            defines["TVMT_CODE_SECTION"] = '__attribute__((section(".tvmt_code")))'
    return defines


def _copy_model(artifact: Artifact, to: Path) -> tuple[list[str], list[str]]:
    """Copy the model's sources and headers; returns sources and include folders relative to the project."""
    missing = [name for name in artifact.sources if not (artifact.directory / name).is_file()]
    if missing:
        raise UserError(
            f"{artifact.directory} lacks {', '.join(missing)}, which its metadata names.",
            "Compile the model again.",
        )
    headers = [path for folder in artifact.include_dirs for path in (artifact.directory / folder).glob("*.h")]
    for path in (*(artifact.directory / name for name in artifact.sources), *headers):
        relative = path.relative_to(artifact.directory)
        _write(to / relative, path.read_bytes())
    folders = [(Path(_MODEL) / folder).as_posix() for folder in artifact.include_dirs]
    return [f"{_MODEL}/{name}" for name in artifact.sources], folders


def _copy(files: Iterable[Path], directory: Path, folder: str) -> list[str]:
    """Copy `files` to a folder of the project; returns the C sources among them, relative to the project."""
    sources = []
    for path in files:
        _write(directory / folder / path.name, path.read_bytes())
        if path.suffix == ".c":
            sources.append(f"{folder}/{path.name}")
    return sources


def _environment(port: Path) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(port),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # C and make, not HTML
    )


def _write(path: Path, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
