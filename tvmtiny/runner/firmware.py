"""Whether a device has the firmware that it is taken for."""

from __future__ import annotations

from tvmtiny.artifact import Artifact
from tvmtiny.errors import EnvironmentProblem
from tvmtiny.link.messages import Info
from tvmtiny.runner.project import model_id, target_macro
from tvmtiny.runner.protocol import check_model
from tvmtiny.target import Target


def check_firmware(artifact: Artifact, target: Target, info: Info, line: str) -> None:
    """Raise EnvironmentProblem when the device on `line` has another model, or firmware of another target.

    Another target computes the same bytes, but its cycles would be reported as those of `target`.
    """
    expected = model_id(artifact)
    if info.model_id != expected:
        raise EnvironmentProblem(
            f"The firmware on {line} holds another model: {info.model} ({info.model_id}, built for "
            f"{info.target} by tvmtiny {info.version}), not {artifact.name} ({expected}).",
            f"Flash {artifact.directory}: tvmtiny board flash {artifact.directory}.",
        )
    if info.target != target_macro(target):
        raise EnvironmentProblem(
            f"The firmware on {line} was built for the target {info.target}, not {target.name}.",
            f"Name it with --target {info.target}, or flash {artifact.directory} for {target.name}: "
            f"tvmtiny board flash {artifact.directory} --target {target.name}.",
        )
    check_model(artifact, info)
