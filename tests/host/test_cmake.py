"""The model directory in a plain CMake build: applications in C and C++ that call models, on the host."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from model_cases import shared
from tokenizer_cases import EXAMPLE

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model

PROJECT = """
cmake_minimum_required(VERSION 3.18)
project(application LANGUAGES C CXX)
set(CMAKE_C_FLAGS "-Wall -Wextra -Wconversion -Werror")
set(CMAKE_CXX_FLAGS "${CMAKE_C_FLAGS}")
%(subdirectories)s
add_executable(application %(source)s)
target_link_libraries(application PRIVATE %(libraries)s)
"""

TEXT = """
#include <stdio.h>
#include <string.h>
#include "intent_text.h"
#include "motion_features.h"
#include "second_text.h"
#include "tvmt_classify.h"

#ifdef __cplusplus
alignas(INTENT_ARENA_ALIGN)
#else
_Alignas(INTENT_ARENA_ALIGN)
#endif
static uint8_t arena[INTENT_ARENA_BYTES + SECOND_ARENA_BYTES];

int main(void) {
  const char text[] = "play some jazz";
  if (intent_run_text(arena, sizeof arena, text, strlen(text)) != INTENT_OK) return 1;
  tvmt_class found = tvmt_classify_s16(intent_logits(arena), INTENT_LOGITS_COUNT, INTENT_LOGITS_SCALE_Q32);
  printf("%s\\n", intent_labels[found.best]);
  if (second_run_text(arena, sizeof arena, text, strlen(text)) != SECOND_OK) return 1;
  found = tvmt_classify_s16(second_logits(arena), SECOND_LOGITS_COUNT, SECOND_LOGITS_SCALE_Q32);
  printf("%s\\n", second_labels[found.best]);
  return 0;
}
"""

BYTES = """
#include <stdio.h>
#include "post_norm.h"

static _Alignas(POST_NORM_ARENA_ALIGN) uint8_t arena[POST_NORM_ARENA_BYTES];

int main(void) {
  const tvmt_model *model = &post_norm_model;
  int n_tokens = 0;
  if (scanf("%d", &n_tokens) != 1) return 1;
  for (uint32_t i = 0; i < model->inputs[0].bytes; i++) {
    unsigned int value = 0;
    if (scanf("%u", &value) != 1) return 1;
    arena[model->inputs[0].offset + i] = (uint8_t)value;
  }
  if (model->run(arena, sizeof arena, n_tokens) != 0) return 1;
  for (uint32_t i = 0; i < model->outputs[0].bytes; i++) printf("%u ", arena[model->outputs[0].offset + i]);
  return 0;
}
"""


def cmake() -> str:
    """CMake of the system, or of the Python package."""
    found = shutil.which("cmake") or shutil.which("cmake", path=Path(sys.executable).parent)
    if found is None:
        pytest.skip("cmake not installed")
    return str(found)


def call(*command: str | Path, said: str = "") -> str:
    finished = subprocess.run(
        [str(part) for part in command], text=True, input=said, capture_output=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def configure(folder: Path, source: str, text: str, models: list[Path]) -> list[str | Path]:
    """An application with models; returns the command that configures its build."""
    folder.mkdir()
    (folder / source).write_text(text)
    fields = {
        "source": source,
        "subdirectories": "\n".join(f"add_subdirectory({model} {model.name})" for model in models),
        "libraries": " ".join(f"tvmtiny::{model.name}" for model in models),
    }
    (folder / "CMakeLists.txt").write_text(PROJECT % fields)
    return [cmake(), "-S", folder, "-B", folder / "build", "-DCMAKE_BUILD_TYPE=Release"]


def build(folder: Path, source: str, text: str, models: list[Path]) -> Path:
    call(*configure(folder, source, text, models))
    call(cmake(), "--build", folder / "build")
    return folder / "build" / "application"


@pytest.fixture(scope="module")
def intents(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models with tokenizers of one kind, for cores whose micro-kernels differ, and one with a front end."""
    folder = tmp_path_factory.mktemp("intents")
    motion = EXAMPLE.parent / "motion"
    front_end = folder / "features.toml"
    front_end.write_text('kind = "sensor"\nchannels = 6\ngain = 0.001\n')
    compile_model(
        motion / "model.onnx",
        target="qemu-m55",
        calibration=motion / "calibration.npz",
        features=front_end,
        output=folder / "motion",
    )
    for name, target in (("intent", "stm32f746"), ("second", "qemu-m4")):
        compile_model(
            EXAMPLE / "model.onnx",
            target=target,
            calibration=EXAMPLE / "calibration.npz",
            labels=EXAMPLE / "labels.txt",
            tokenizer=EXAMPLE / "tokenizer.json",
            output=folder / name,
        )
    return [folder / "intent", folder / "second", folder / "motion"]


@pytest.mark.parametrize("source", ["main.c", "main.cpp"])
def test_models_in_one_application_share_code(intents: list[Path], source: str, tmp_path: Path) -> None:
    program = build(tmp_path / "application", source, TEXT, intents)
    assert call(program).split() == ["PlayMusic", "PlayMusic"]
    objects = [path.name for path in (tmp_path / "application" / "build").rglob("*.o")]
    assert objects.count("tvmt_tokenizer.c.o") == 1
    assert {"intent.c.o", "second.c.o", "motion.c.o", "tvmt_sensor.c.o"} <= set(objects)


def test_models_of_different_versions_are_refused(intents: list[Path], tmp_path: Path) -> None:
    older = tmp_path / "second"
    shutil.copytree(intents[1], older)
    with (older / "tvmt_tokenizer.c").open("a") as file:
        file.write("/* of another version */\n")
    command = configure(tmp_path / "application", "main.c", TEXT, [intents[0], older])
    finished = subprocess.run(list(map(str, command)), text=True, capture_output=True, check=False)
    assert finished.returncode != 0
    assert "Compile all models with one version of tvmtiny" in " ".join(finished.stderr.split())


def test_the_library_gives_the_reference_bytes(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    artifact: Artifact = shared(tmp_path_factory, "post_norm", "qemu-m4")
    program = build(tmp_path / "application", "main.c", BYTES, [artifact.directory])
    inputs = np.load(artifact.directory / "reference" / "inputs.npz")
    outputs = np.load(artifact.directory / "reference" / "outputs.npz")
    (given,), (expected,) = artifact.inputs, artifact.outputs
    for index, n_tokens in enumerate(inputs["n_tokens"]):
        raw = np.frombuffer(inputs[given.name][index].tobytes(), np.uint8)
        found = call(program, said=f"{n_tokens} {' '.join(map(str, raw))}").split()
        assert bytes(map(int, found)) == outputs[expected.name][index].tobytes()


def test_alone_the_directory_builds_its_example(intents: list[Path], tmp_path: Path) -> None:
    call(cmake(), "-S", intents[0], "-B", tmp_path, "-DCMAKE_C_FLAGS=-Werror")
    call(cmake(), "--build", tmp_path)
    assert call(tmp_path / "intent_main").startswith("PlayMusic (")
