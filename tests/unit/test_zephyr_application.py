"""Zephyr applications as they are written, without Zephyr."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from model_cases import shared

from tvmtiny.artifact import Artifact
from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.project import project_kinds
from tvmtiny.project.api import ProjectAPI
from tvmtiny.target import HOST, load_target
from tvmtiny.zephyr.application import write_application, write_reference_test


@pytest.fixture
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return shared(tmp_path_factory, "post_norm", "qemu-m4")


def written(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_zephyr_is_a_kind_for_boards_that_zephyr_knows(artifact: Artifact, tmp_path: Path) -> None:
    assert "zephyr" in project_kinds()
    assert {"stm32f746", "qemu-m4"} <= set(ProjectAPI("zephyr").info()["targets"])
    with pytest.raises(UserError, match="host"):
        ProjectAPI("zephyr").generate_project(artifact, load_target(HOST), tmp_path / "application")


def test_an_application_stands_alone(artifact: Artifact, tmp_path: Path) -> None:
    write_application(artifact, load_target("stm32f746"), tmp_path)
    files = written(tmp_path)
    text = files["CMakeLists.txt"].decode()
    sources = set(re.findall(r"\S+\.c\b", text))
    assert {"src/transport.c", "common/harness.c", "common/tvmt_link.c", "common/tvmt_frame.c"} == sources
    assert sources <= set(files)
    assert {f"model/{source}" for source in artifact.sources} <= set(files)
    assert str(artifact.directory) not in text
    assert "stm32f746g_disco" in text
    assert yaml.safe_load(files["west.yml"])["manifest"]["projects"][0]["name"] == "zephyr"


def test_writing_again_changes_no_file(artifact: Artifact, tmp_path: Path) -> None:
    target = load_target("qemu-m4")
    write_application(artifact, target, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    write_application(artifact, target, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("debug", [False, True])
def test_only_a_debugging_application_shows_its_arena(
    artifact: Artifact, tmp_path: Path, debug: bool
) -> None:
    write_application(artifact, load_target("qemu-m4"), tmp_path, debug=debug)
    assert ("TVMT_LINK_DEBUG" in (tmp_path / "CMakeLists.txt").read_text()) is debug


def test_building_without_zephyr_says_what_is_missing(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZEPHYR_BASE", raising=False)
    api = ProjectAPI("zephyr")
    api.generate_project(artifact, load_target("stm32f746"), tmp_path)
    with pytest.raises(EnvironmentProblem, match="ZEPHYR_BASE") as raised:
        api.build()
    assert "west build -b stm32f746g_disco" in raised.value.remedy


def test_a_board_needs_a_port(artifact: Artifact, tmp_path: Path) -> None:
    api = ProjectAPI("zephyr")
    api.generate_project(artifact, load_target("stm32f746"), tmp_path)
    with pytest.raises(UserError, match="serial port"):
        api.open_transport()


def test_the_reference_test_has_every_sample(artifact: Artifact, tmp_path: Path) -> None:
    write_reference_test(artifact, artifact.directory, tmp_path)
    text = (tmp_path / "src" / "samples.c").read_text()
    lengths = re.findall(r"\{(\d+), inputs_\d+, outputs_\d+\}", text)
    assert len(lengths) == 8
    values = re.search(r"output_0_0\[\] = \{\n(.*?)\n\}", text, re.DOTALL)
    assert values is not None
    assert len(values.group(1).rstrip(",").split(",")) == artifact.outputs[0].bytes
