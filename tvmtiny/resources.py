"""Where the data that is not Python lies: `targets/`, `schedules/`, `microtvm_projects/`, `benchmarks/`.

In a source checkout these folders lie beside the package; a wheel carries them inside it, under `_data/`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from tvmtiny.errors import EnvironmentProblem


def data_dir(name: str) -> Path:
    """Folder of the data called `name`, e.g. "targets" or "microtvm_projects/common".

    Raises EnvironmentProblem when the installation lacks it.
    """
    package = Path(str(resources.files("tvmtiny")))
    for folder in (package / "_data" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise EnvironmentProblem(
        f"This installation of tvmtiny lacks its folder {name!r} (looked beside and inside {package}).",
        "Install it again: pip install --force-reinstall tvmtiny, or clone the repository anew.",
    )
