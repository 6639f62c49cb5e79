"""The static library of a model for one core: what is in it, and that a firmware of one's own links with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from model_cases import shared

from tvmtiny.project.api import ProjectAPI
from tvmtiny.runner.process import find_tool
from tvmtiny.target import load_target

pytestmark = pytest.mark.qemu

APPLICATION = """
#include "post_norm.h"
static _Alignas(POST_NORM_ARENA_ALIGN) uint8_t arena[POST_NORM_ARENA_BYTES];
int main(void) { return post_norm_run(arena, sizeof arena, 1); }
"""


def call(*command: str | Path, cwd: Path) -> str:
    finished = subprocess.run(list(map(str, command)), cwd=cwd, text=True, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_a_firmware_links_with_it(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    artifact, target = shared(tmp_path_factory, "post_norm", "qemu-m4"), load_target("stm32f746")
    ProjectAPI("baremetal").generate_project(artifact, target, tmp_path)
    call("make", "library", "WERROR=-Werror", cwd=tmp_path)
    archive = tmp_path / "out" / "libpost_norm.a"
    members = call(find_tool("arm-none-eabi-ar"), "t", archive, cwd=tmp_path).split()
    assert sorted(members) == sorted(source.replace(".c", ".o") for source in artifact.sources)

    (tmp_path / "application.c").write_text(APPLICATION)
    includes = [f"-Imodel/{folder}" for folder in artifact.include_dirs]
    flags = [*target.flags, "-nostartfiles", "-Wl,-emain", "--specs=nosys.specs", *includes]
    gcc = find_tool("arm-none-eabi-gcc")
    call(gcc, *flags, "application.c", "-Lout", "-lpost_norm", "-o", "application.elf", cwd=tmp_path)
    with (tmp_path / "application.elf").open("rb") as file:
        sections = [section.name for section in ELFFile(file).iter_sections()]
    assert ".text" in sections
    assert not [name for name in sections if name.startswith(".tvmt")]
