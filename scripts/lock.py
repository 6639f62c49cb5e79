"""Pin every Python dependency, direct and indirect: writes requirements/{runtime,test,train}.txt.

    .venv/bin/python scripts/lock.py

pip resolves pyproject.toml's dependencies and extras as if nothing were installed. Each file repeats nothing
of the one before it, so that `pip install -r requirements/runtime.txt -r requirements/test.txt` states each
package once. Run it with the oldest supported Python: what only that one needs does no harm on newer ones.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Written by scripts/lock.py from pyproject.toml ({what}): do not edit.\n"
# torch pins these itself, for its CUDA build only: naming them would install CUDA beside the CPU build.
CUDA_ONLY = re.compile(r"^(nvidia|cuda|triton)\b")


def resolve(requirements: list[str]) -> dict[str, str]:
    """Return name -> version of `requirements` and of all that they need; raises CalledProcessError."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    result = subprocess.run(
        [*command, "--report", "-", *requirements], check=True, stdout=subprocess.PIPE, text=True
    )
    packages = [item["metadata"] for item in json.loads(result.stdout)["install"]]
    # A local version ("2.13.0+cpu") names one build of a release: the pin must accept every build.
    return {item["name"].lower().replace("_", "-"): item["version"].split("+")[0] for item in packages}


def main() -> None:
    """Resolve everything at once, so that the three files agree, then split by who needs what."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {"runtime": project["dependencies"], "test": extras["test"], "train": extras["train"]}
    everything = resolve([requirement for group in wanted.values() for requirement in group])
    constraints = [f"{name}=={version}" for name, version in everything.items()]

    done: set[str] = set()
    for what, requirements in wanted.items():
        pins = resolve([*requirements, *(c for c in constraints if c.split("==")[0] in done)])
        new = {name: version for name, version in everything.items() if name in pins and name not in done}
        done |= set(new)
        lines = [f"{name}=={version}\n" for name, version in sorted(new.items()) if not CUDA_ONLY.match(name)]
        path = ROOT / "requirements" / f"{what}.txt"
        path.write_text(HEADER.format(what=what) + "".join(lines))
        print(f"{path.relative_to(ROOT)}: {len(lines)} packages")


if __name__ == "__main__":
    main()
