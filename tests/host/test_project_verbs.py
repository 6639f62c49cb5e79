"""The verbs of a project, and how kinds are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from link_models import expected, sample, write_fake
from typer.testing import CliRunner

from tvmtiny.cli import app
from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.link.client import Client
from tvmtiny.project import load_kind, project_kinds
from tvmtiny.project.api import ProjectAPI
from tvmtiny.runner.protocol import output_tensors, sample_bytes
from tvmtiny.target import HOST, list_targets, load_target


def test_kinds_are_found_and_serve_every_target() -> None:
    assert {"baremetal", "host"} <= set(project_kinds())
    assert {target.project for target in list_targets()} <= set(project_kinds())
    assert "stm32f746" in ProjectAPI("baremetal").info()["targets"]
    with pytest.raises(UserError, match="moon") as raised:
        load_kind("moon")
    assert "baremetal" in raised.value.remedy


def test_from_generating_to_running(tmp_path: Path) -> None:
    artifact = write_fake(tmp_path / "model")
    api = ProjectAPI("host")
    with pytest.raises(UserError, match="no project yet"):
        api.build()
    api.generate_project(artifact, load_target(HOST), tmp_path / "app")
    with pytest.raises(EnvironmentProblem, match="could not be started: No such file") as raised:
        api.open_transport()
    assert "ProjectAPI.build" in raised.value.remedy
    assert api.build(strict=True).is_file()
    with pytest.raises(UserError, match="no line yet"):
        api.read_transport(0)
    client = Client(api.open_transport())
    assert client.open().model == "fake"
    _, outputs = client.run(sample_bytes(artifact, sample(), 0), 8, 5)
    np.testing.assert_array_equal(output_tensors(artifact, outputs)["logits"], expected(sample()))
    api.write_transport(b"\0noise\0")
    assert api.read_transport(0.05) == b""
    api.close_transport()
    with pytest.raises(UserError, match="not flashed"):
        api.flash()


def test_a_target_of_another_kind_is_refused(tmp_path: Path) -> None:
    artifact = write_fake(tmp_path / "model")
    with pytest.raises(UserError, match="stm32f746 is a target of the kind baremetal"):
        ProjectAPI("host").generate_project(artifact, load_target("stm32f746"), tmp_path / "app")


def test_a_debugging_build_shows_the_arena_and_no_other_does(tmp_path: Path) -> None:
    artifact = write_fake(tmp_path / "model")
    data = sample_bytes(artifact, sample(), 0)
    for debug in (False, True):
        api = ProjectAPI("host")
        api.generate_project(artifact, load_target(HOST), tmp_path / f"app-{debug}", debug=debug)
        api.build(strict=True)
        client = Client(api.open_transport())
        assert client.open(fill=0x3C).debug is debug
        if debug:
            assert client.peek(32, 16) == b"\x3c" * 16
            client.run(data, 8, 5)
            assert client.peek(2, 14) == data[2:]
        else:
            with pytest.raises(Exception, match="built without this"):
                client.peek(0, 16)
            with pytest.raises(Exception, match="built without this"):
                client.run_until(data, 8, 0, 5)
        client.close()


def test_the_command_writes_and_builds(tmp_path: Path) -> None:
    write_fake(tmp_path / "model")
    arguments = ["project", str(tmp_path / "model"), "--kind", "host", "-o", str(tmp_path / "app"), "--build"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "app" / "out" / "firmware.elf").is_file()
    assert (tmp_path / "app" / "Makefile").read_text().startswith("# Host program of the model fake")
