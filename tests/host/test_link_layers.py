"""The dump layer by layer of a debugging build: the arena after every operator is what the reference has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from model_cases import samples, shared

from tvmtiny.errors import EnvironmentProblem
from tvmtiny.link.client import Client
from tvmtiny.link.layers import dump_layers
from tvmtiny.project.api import ProjectAPI
from tvmtiny.target import HOST, load_target


@pytest.mark.parametrize("case", ["post_norm", "sensor_encoder"])
def test_every_layer_is_that_of_the_reference(
    case: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    artifact = shared(tmp_path_factory, case, "qemu-m4")
    chosen = samples(artifact)[1]
    api = ProjectAPI("host")
    for debug in (True, False):
        api.generate_project(artifact, load_target(HOST), tmp_path, debug=debug)
        api.build()
        client = Client(api.open_transport())
        client.open()
        if not debug:
            with pytest.raises(EnvironmentProblem, match="does not show its arena"):
                dump_layers(client, artifact, chosen, 5)
            continue
        layers = dump_layers(client, artifact, chosen, 5)
        assert [layer.name for layer in layers] == [row["name"] for row in artifact.metadata["operators"]]
        assert all(layer.different == 0 for layer in layers)
        assert all(np.any(layer.found) for layer in layers)
    api.close_transport()
