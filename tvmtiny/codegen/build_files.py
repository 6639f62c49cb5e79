"""Files that make a model directory a part of other builds: CMake, Zephyr, PlatformIO, CMSIS csolution.

All are made from the contents of metadata.json, the one place that lists a directory's sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvmtiny.codegen.c_sources import template_environment
from tvmtiny.codegen.directory import to_json
from tvmtiny.resources import data_dir

COMMON_PREFIX = "tvmt_"
"""Sources of these names are the same in every directory: a build of several models compiles them once."""

_ZEPHYR_FILES = (
    "Kconfig.tvmt",
    "tvmt_zephyr.cmake",
    "tvmt_zephyr.ld",
    "tvmt_zephyr.c",
    "tvmt_zephyr_shell.c",
    "include/tvmt_zephyr.h",
)


def build_files(data: Mapping[str, Any]) -> dict[str, str]:
    """File name (relative to the model's directory) -> text, from the contents of metadata.json."""
    environment, context, name = template_environment(), _context(data), data["name"]
    templates = {
        "CMakeLists.txt": "CMakeLists.txt.j2",
        f"{name}.clayer.yml": "clayer.yml.j2",
        "zephyr/module.yml": "zephyr/module.yml.j2",
        "zephyr/CMakeLists.txt": "zephyr/CMakeLists.txt.j2",
        "zephyr/Kconfig": "zephyr/Kconfig.j2",
        f"zephyr/{name}_zephyr.c": "zephyr/model.c.j2",
        f"zephyr/include/{name}_zephyr.h": "zephyr/model.h.j2",
    }
    rendered = {
        file: environment.get_template(f"builds/{template}").render(context)
        for file, template in templates.items()
    }
    projects = data_dir("microtvm_projects")
    module = {f"zephyr/{file}": (projects / "zephyr" / "module" / file) for file in _ZEPHYR_FILES}
    copied = {"cmake/tvmt_common.cmake": projects / "common" / "tvmt_common.cmake"} | module
    return {
        **rendered,
        **{file: path.read_text("utf-8") for file, path in copied.items()},
        "library.json": to_json(_platformio(data)),
    }


def _context(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": data["name"],
        "NAME": data["name"].upper(),
        "version": data["versions"]["tvmtiny"],
        "description": _one_line(data["model"]["source"]),
        "target": data["target"],
        "cpu": data["cpu"],
        "family": data["family"],
        "arena_bytes": data["arena"]["bytes"],
        "arena_align": data["arena"]["align"],
        "weight_bytes": data["figures"]["weight_bytes"],
        "text": data["tokenizer"] is not None,
        "sources": data["sources"],
        "own_sources": [file for file in data["sources"] if not file.startswith(COMMON_PREFIX)],
        "common_sources": [file for file in data["sources"] if file.startswith(COMMON_PREFIX)],
        "include_dirs": data["include_dirs"],
    }


def _one_line(text: str) -> str:
    """Text of the source model as any of the formats takes it in a string: printable ASCII without quotes."""
    return "".join(c if " " <= c <= "~" and c not in "\"\\$'`" else "_" for c in text)


def _platformio(data: Mapping[str, Any]) -> dict[str, Any]:
    """PlatformIO's manifest of a library (library.json). `srcDir` and `includeDir` are on the include path."""
    (headers,) = (folder for folder in data["include_dirs"] if folder != ".")
    return {
        "name": f"tvmtiny-{data['name']}",
        "version": data["versions"]["tvmtiny"],
        "description": f"{data['name']}, an integer transformer {_one_line(data['model']['source'])}",
        "headers": f"{data['name']}.h",
        "frameworks": "*",
        "platforms": "*",
        "build": {
            "srcDir": ".",
            "includeDir": headers,
            "srcFilter": ["-<*>", *(f"+<{source}>" for source in data["sources"])],
        },
        "export": {"exclude": ["build", "reference"]},
    }
