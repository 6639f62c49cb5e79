"""The documentation: links resolve, and it leaves out no field, command, option, kernel or pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from models import dense_model, save

from tvmtiny.artifact import Artifact
from tvmtiny.cli import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md"), *ROOT.glob("examples/*/README.md")])
OUTSIDE = re.compile(r"[a-z]+:")
# Free text in the place of keys: paths of files.
KEYED_BY_PATH = ("files",)


def prose(page: Path) -> str:
    """The text of a page without its code blocks."""
    return re.sub(r"^ {4}.*$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)


def links(page: Path) -> Iterator[str]:
    return (link for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if not OUTSIDE.match(link))


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_resolve(page: Path) -> None:
    for link in links(page):
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not fragment or fragment in anchors(target), f"{link}: no such heading"


def documented(page: str) -> set[str]:
    """The first cells of all tables of a page that are written as code; a cell may hold several."""
    rows = re.findall(r"^\| *(`[^|]*`) *\|", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def keys(value: Any) -> set[str]:
    if isinstance(value, list):
        return {key for item in value for key in keys(item)}
    if not isinstance(value, dict):
        return set()
    nested = {key for name, item in value.items() if name not in KEYED_BY_PATH for key in keys(item)}
    return set(value) | nested


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The smallest model there is, really compiled."""
    from tvmtiny.compiler import compile as compile_model

    directory = tmp_path_factory.mktemp("docs")
    features = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    return compile_model(
        save(dense_model(), directory / "model.onnx"),
        target="stm32f746",
        calibration={"features": features},
        verify={"features": features, "labels": np.zeros(8, np.int64)},
        output=directory / "tiny",
    )


def test_every_field_of_metadata_is_documented(artifact: Artifact) -> None:
    page = (DOCS / "metadata.md").read_text(encoding="utf-8")
    missing = {key for key in keys(artifact.metadata) if f"`{key}`" not in page}
    assert not missing


def test_documented_fields_of_metadata_exist(artifact: Artifact) -> None:
    assert documented("metadata.md") - keys(artifact.metadata) == set()


def test_every_file_of_a_model_directory_is_documented(artifact: Artifact) -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    for file in artifact.metadata["files"]:
        name = Path(file).name.replace(artifact.name, "intent")
        assert name in page or Path(file).match("include/tvmt_*.h") or name == "intent_weights.h", file


def commands() -> dict[str, Any]:
    return dict(typer.main.get_group(app).commands)


def test_every_command_is_documented() -> None:
    page = DOCS / "command-line.md"
    assert set(commands()) <= anchors(page)


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_option_is_documented(name: str) -> None:
    text = (DOCS / "command-line.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text.split(f"\n## {name}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    options = {option for parameter in commands()[name].params for option in parameter.opts}
    missing = {option for option in options - {"-h", "--help"} if option[0] == "-" and option not in section}
    assert not missing


def test_every_fusion_pass_is_documented_in_order() -> None:
    from tvmtiny.passes.pipeline import fusion_passes

    names = [step.info.name.removeprefix("tvmtiny.") for step in fusion_passes()]
    page = (DOCS / "adding-a-pass.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)
    assert [name for name in dict.fromkeys(table) if name in names] == list(dict.fromkeys(names))


def test_every_kernel_is_documented() -> None:
    from tvmtiny.kernels import kernels

    page = (DOCS / "metadata.md").read_text(encoding="utf-8")
    assert not {name for name in kernels() if f"`{name}`" not in page}


def test_documentation_names_only_files_that_exist() -> None:
    pattern = re.compile(
        r"`((?:tvmtiny|schedules|targets|microtvm_projects|benchmarks|tests)/[a-z0-9_./-]+)`"
    )
    for page in PAGES:
        for path in pattern.findall(page.read_text(encoding="utf-8")):
            assert (ROOT / path).exists(), f"{page.name} names {path}"
