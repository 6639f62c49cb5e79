"""What makes a model directory part of other builds, without those builds' tools: contents, keys, Kconfig."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kconfiglib
import numpy as np
import pytest
import yaml
from models import dense_model, save

from tvmtiny.artifact import Artifact
from tvmtiny.codegen.build_files import build_files
from tvmtiny.compiler import compile as compile_model
from tvmtiny.resources import data_dir

# Zephyr 4.2, documentation "Modules (External projects)", section "Module yaml file description".
MODULE_KEYS = {
    "name",
    "build",
    "samples",
    "tests",
    "boards",
    "blobs",
    "security",
    "package-managers",
    "runners",
}
MODULE_BUILD_KEYS = {"cmake", "kconfig", "cmake-ext", "kconfig-ext", "depends", "settings", "sysbuild-cmake"}
# PlatformIO Core 6, documentation "library.json", fields of the manifest and of "build".
LIBRARY_KEYS = {"name", "version", "description", "headers", "frameworks", "platforms", "build", "export"}
LIBRARY_BUILD_KEYS = {"flags", "unflags", "includeDir", "srcDir", "srcFilter", "libArchive", "libLDFMode"}
# CMSIS-Toolbox, documentation "CMSIS Solution Project File Format", node "layer:" and what it has under it.
LAYER_KEYS = {"type", "name", "description", "add-path", "groups", "define", "connections", "components"}

# What the module's Kconfig names of Zephyr: set here are the first three.
ZEPHYR = "".join(
    f"config {name}\n\tbool{kind}\n"
    for kind, names in (
        ("\n\tdefault y", ("ARM", "ARCH_HAS_CODE_DATA_RELOCATION", "ARMV8_1_M_MVEI")),
        (' "x"', ("CODE_DATA_RELOCATION", "NO_OPTIMIZATIONS", "SHELL", "FPU", "FPU_SHARING")),
    )
    for name in names
)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    directory = tmp_path_factory.mktemp("builds")
    features = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    return compile_model(
        save(dense_model(), directory / "model.onnx"),
        target="qemu-m55",
        calibration={"features": features},
        output=directory / "tiny",
    )


@pytest.fixture
def metadata(artifact: Artifact) -> dict[str, Any]:
    """Of a model with a tokenizer, which brings sources that other models have too."""
    sources = [*artifact.sources, "tiny_tokenizer.c", "tvmt_tokenizer.c", "tvmt_tokenizer_words.c"]
    return artifact.metadata | {"sources": sources, "tokenizer": {"kind": "wordpiece"}}


def listed(text: str) -> set[str]:
    """C files that a text names, but those of Zephyr's registry, without folders."""
    return {name for name in re.findall(r"(\w+\.c)\b", text) if not re.search(r"zephyr|^main", name)}


@pytest.mark.parametrize(
    "file", ["CMakeLists.txt", "zephyr/CMakeLists.txt", "library.json", "tiny.clayer.yml"]
)
def test_every_build_compiles_exactly_the_sources_of_the_metadata(
    metadata: dict[str, Any], file: str
) -> None:
    assert listed(build_files(metadata)[file]) == set(metadata["sources"])


def test_they_belong_to_the_compiled_model(artifact: Artifact) -> None:
    for file, text in build_files(artifact.metadata).items():
        assert (artifact.directory / file).read_text("utf-8") == text
        assert file in artifact.metadata["files"]


def test_a_strange_description_stays_inside_its_quotes(metadata: dict[str, Any]) -> None:
    source = 'from "a$(HOME)\\b`\'é\n".onnx'
    files = build_files(metadata | {"model": {"source": source, "sha256": ""}})
    assert yaml.safe_load(files["tiny.clayer.yml"])["layer"]["description"].isprintable()
    assert json.loads(files["library.json"])["description"].isascii()
    assert "$(HOME)" not in files["zephyr/Kconfig"]


def test_module_yml_has_documented_keys(metadata: dict[str, Any], artifact: Artifact) -> None:
    module = yaml.safe_load(build_files(metadata)["zephyr/module.yml"])
    assert set(module) <= MODULE_KEYS
    assert set(module["build"]) <= MODULE_BUILD_KEYS
    assert (artifact.directory / module["build"]["cmake"] / "CMakeLists.txt").is_file()
    assert (artifact.directory / module["build"]["kconfig"]).is_file()


def test_library_json_has_documented_keys(metadata: dict[str, Any]) -> None:
    library = json.loads(build_files(metadata)["library.json"])
    assert set(library) <= LIBRARY_KEYS
    assert set(library["build"]) <= LIBRARY_BUILD_KEYS
    assert re.fullmatch(r"\d+\.\d+\.\d+([-+].*)?", library["version"])
    assert library["build"]["srcFilter"][0] == "-<*>"


def test_clayer_has_documented_keys_and_existing_folders(artifact: Artifact) -> None:
    layer = yaml.safe_load(build_files(artifact.metadata)["tiny.clayer.yml"])["layer"]
    assert set(layer) <= LAYER_KEYS
    files = [entry["file"] for group in layer["groups"] for entry in group["files"]]
    assert all((artifact.directory / path).exists() for path in (*layer["add-path"], *files))


def test_yaml_for_twister_has_documented_keys() -> None:
    # Zephyr 4.2, documentation "Test Runner (Twister)", sections "Tests" and "Samples".
    keys = {
        "tags",
        "min_ram",
        "min_flash",
        "integration_platforms",
        "harness",
        "harness_config",
        "extra_args",
    }
    keys |= {"platform_allow", "extra_configs", "build_only", "filter", "timeout", "depends_on", "sysbuild"}
    texts = [path.read_text("utf-8") for path in _twister_files()]
    assert texts
    for text in texts:
        data = yaml.safe_load(re.sub(r"\{\{ (\w+) \}\}", "1", text))
        assert set(data) <= {"sample", "common", "tests"}
        assert set(data.get("common", {})) <= keys
        for name, test in data["tests"].items():
            assert name.count(".") >= 2
            assert set(test) <= keys


def _twister_files() -> Iterator[Path]:
    for root in (data_dir("microtvm_projects/zephyr"), Path(__file__).parents[2] / "examples"):
        for pattern in ("sample.yaml", "testcase.yaml"):
            yield from root.rglob(f"{pattern}*")


class Configuration:
    """The Kconfig of models in a Zephyr that is only what they need of it."""

    def __init__(self, folder: Path, models: Sequence[Path], chosen: Sequence[str] = ()) -> None:
        functions = folder / "kconfigfunctions.py"
        functions.write_text(
            f"CHOSEN = {list(chosen)!r}\n"
            "def dt_chosen_enabled(kconf, _, name):\n"
            "    return 'y' if name in CHOSEN else 'n'\n"
            "functions = {'dt_chosen_enabled': (dt_chosen_enabled, 1, 1)}\n"
        )
        template = folder / "subsys" / "logging" / "Kconfig.template.log_config"
        template.parent.mkdir(parents=True)
        template.write_text("config $(module)_LOG_LEVEL\n\tint\n\tdefault 3\n")
        sources = [f'source "{model / "zephyr" / "Kconfig"}"\n' for model in models]
        (folder / "Kconfig").write_text(ZEPHYR + "".join(sources))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("srctree", str(folder))
            patch.setenv("KCONFIG_STRICT", "y")
            patch.syspath_prepend(folder)
            patch.delitem(sys.modules, "kconfigfunctions", raising=False)
            self.kconfig = kconfiglib.Kconfig(str(folder / "Kconfig"), warn_to_stderr=False)

    def __getitem__(self, name: str) -> str:
        return self.kconfig.syms[name].str_value

    def prompts(self, name: str) -> int:
        return sum(node.prompt is not None for node in self.kconfig.syms[name].nodes)


def test_kconfig_has_a_model_after_one_line(artifact: Artifact, tmp_path: Path) -> None:
    found = Configuration(tmp_path, [artifact.directory])
    assert found.kconfig.warnings == []
    assert (found["TVMTINY_TINY"], found["TVMT"], found["TVMTINY_TINY_ARENA_OWN"]) == ("y", "y", "y")
    assert found["TVMT_ARENA_SRAM"] == "y"
    assert found["TVMTINY_TINY_WEIGHTS_REGION"] == "n"


def test_kconfig_of_a_model_that_is_off_selects_nothing(artifact: Artifact, tmp_path: Path) -> None:
    found = Configuration(tmp_path, [artifact.directory])
    found.kconfig.syms["TVMTINY_TINY"].set_value("n")
    assert found["TVMT"] == "n"


@pytest.mark.parametrize(
    ("chosen", "memory"),
    [
        ([], "TVMT_ARENA_SRAM"),
        (["zephyr,dtcm"], "TVMT_ARENA_DTCM"),
        (["tvmtiny,arena"], "TVMT_ARENA_REGION"),
        (["zephyr,dtcm", "tvmtiny,arena"], "TVMT_ARENA_REGION"),
    ],
)
def test_kconfig_takes_the_arena_where_the_devicetree_says(
    artifact: Artifact, tmp_path: Path, chosen: list[str], memory: str
) -> None:
    found = Configuration(tmp_path, [artifact.directory], chosen)
    assert found[memory] == "y"


def test_kconfig_relocates_weights_to_a_chosen_region_only(artifact: Artifact, tmp_path: Path) -> None:
    found = Configuration(tmp_path, [artifact.directory], ["tvmtiny,weights"])
    assert found["TVMTINY_TINY_WEIGHTS_REGION"] == found["CODE_DATA_RELOCATION"] == "y"
    assert found["TVMT_WEIGHTS_COPY"] == "y"


def test_kconfig_offers_itcm_where_there_is_one(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    for folder, chosen, expected in (("with", ["zephyr,itcm"], "y"), ("without", [], "n")):
        found = Configuration(tmp_path / folder, [artifact.directory], chosen)
        found.kconfig.syms["TVMTINY_TINY_CODE_ITCM"].set_value("y")
        assert found["TVMTINY_TINY_CODE_ITCM"] == expected


def test_kconfig_turns_the_fpu_on_for_vectors(artifact: Artifact, tmp_path: Path) -> None:
    assert artifact.metadata["family"] == "mve"
    found = Configuration(tmp_path, [artifact.directory])
    assert found["FPU"] == found["FPU_SHARING"] == "y"


def test_kconfig_reads_common_options_once(artifact: Artifact, tmp_path: Path) -> None:
    files = build_files(artifact.metadata | {"name": "other"})
    for file, text in files.items():
        path = tmp_path / "other" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "tree").mkdir()
    found = Configuration(tmp_path / "tree", [artifact.directory, tmp_path / "other"])
    assert found.kconfig.warnings == []
    assert found["TVMTINY_TINY"] == found["TVMTINY_OTHER"] == "y"
    assert found.prompts("TVMT_WORK_QUEUE") == found.prompts("TVMTINY_OTHER") == 1
