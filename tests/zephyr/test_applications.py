"""Zephyr applications with models, built with the user's Zephyr and run: bytes, memories, samples.

Set ZEPHYR_BASE (and, without a west workspace, ZEPHYR_MODULES) as for any build of Zephyr; docs/zephyr.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import clustered_model
import numpy as np
import pytest
from model_cases import samples, shared
from zephyr_build import HOST_BOARD, Image, build, run, running, toolchain, typed, wait_for_shell

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model
from tvmtiny.link.client import Client, DeviceStopped
from tvmtiny.project.api import ProjectAPI
from tvmtiny.runner.protocol import output_tensors, sample_bytes
from tvmtiny.runner.size import with_function
from tvmtiny.target import load_target
from tvmtiny.verify import expected_outputs
from tvmtiny.zephyr.application import write_reference_test

pytestmark = pytest.mark.zephyr

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
TARGETS = {
    "mps2/an385": "qemu-m3",
    "mps2/an386": "qemu-m4",
    "mps2/an500": "qemu-m7",
    "mps3/corstone300/an547": "qemu-m55",
    HOST_BOARD: "host",
}
SUCCESS = "PROJECT EXECUTION SUCCESSFUL"

# In the first ITCM half lies what runs at reset; memories of the machine as in its devicetree.
PLACEMENT = """
/ {
	chosen {
		zephyr,flash = &boot;
		zephyr,sram = &isram;
		zephyr,dtcm = &dtcm;
		zephyr,itcm = &itcm;
		tvmtiny,weights = &ddr4;
	};
	boot: memory@10000000 {
		reg = <0x10000000 0x40000>;
	};
};
&itcm {
	reg = <0x10040000 0x40000>;
};
"""
ITCM, DTCM, DDR4 = range(0x10040000, 0x10080000), range(0x30000000, 0x30080000), range(0x60000000, 0x70000000)

REGION = """
/ {
	chosen {
		tvmtiny,arena = &arenas;
	};
	arenas: memory@20300000 {
		compatible = "zephyr,memory-region";
		reg = <0x20300000 0x10000>;
		zephyr,memory-region = "ARENAS";
	};
};
&sram0 {
	reg = <0x20000000 0x300000>;
};
"""


def example(name: str, target: str, output: Path) -> Artifact:
    folder = EXAMPLES / name
    return compile_model(
        folder / "model.onnx",
        target=target,
        calibration=folder / "calibration.npz",
        labels=folder / "labels.txt",
        tokenizer=folder / "tokenizer.json" if name == "intent" else None,
        output=output,
    )


@pytest.fixture(scope="module")
def intent(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return example("intent", "qemu-m4", tmp_path_factory.mktemp("models") / "intent")


@pytest.fixture(scope="module")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return example("motion", "qemu-m4", tmp_path_factory.mktemp("models") / "motion")


def reference(
    artifact: Artifact, folder: Path, board: str, *options: str, other: Artifact | None = None
) -> Image:
    """The reference test of a model, built; `other` is in the image too, by one more line."""
    application = folder / "application"
    write_reference_test(artifact, artifact.directory, application)
    if other is not None:
        lists = application / "CMakeLists.txt"
        line = f"list(APPEND ZEPHYR_EXTRA_MODULES {other.directory})\nfind_package("
        lists.write_text(lists.read_text().replace("find_package(", line, 1))
    return build(application, board, folder / "build", *options)


@pytest.mark.parametrize("board", TARGETS)
def test_bytes_are_those_of_the_reference(board: str, tmp_path: Path) -> None:
    artifact = example("intent", TARGETS[board], tmp_path / "intent")
    said = run(reference(artifact, tmp_path, board))
    assert SUCCESS in said
    assert "8 samples" in said


@pytest.mark.parametrize("case", ["sensor_encoder", "intent_and_tags", "int4"])
def test_other_models_too(case: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    artifact = shared(tmp_path_factory, case, "qemu-m4")
    assert SUCCESS in run(reference(artifact, tmp_path, "mps2/an386"))


def test_a_wrong_byte_is_noticed(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    artifact = shared(tmp_path_factory, "post_norm", "qemu-m4")
    application = tmp_path / "application"
    write_reference_test(artifact, artifact.directory, application)
    samples = application / "src" / "samples.c"
    before, after = samples.read_text().split("output_0_0[] = {\n    ", 1)
    first = int(after.split(",", 1)[0])
    samples.write_text(f"{before}output_0_0[] = {{\n    {first ^ 1},{after.split(',', 1)[1]}")
    said = run(build(application, HOST_BOARD, tmp_path / "build"))
    assert "sample 0: " in said
    assert "PROJECT EXECUTION FAILED" in said


def test_models_share_code_and_arena(intent: Artifact, motion: Artifact, tmp_path: Path) -> None:
    image = reference(
        intent,
        tmp_path,
        "mps2/an386",
        "-DCONFIG_TVMTINY_INTENT_ARENA_SHARED=y",
        "-DCONFIG_TVMTINY_MOTION_ARENA_SHARED=y",
        other=motion,
    )
    address, size = image.symbol("tvmt_shared_arena")
    assert size == max(intent.arena_bytes, motion.arena_bytes)
    assert address % max(intent.arena_align, motion.arena_align) == 0
    assert image.symbols("arena") == {}
    assert {"intent_instance", "motion_instance"} == set(image.symbols(r"\w+_instance"))
    assert SUCCESS in run(image)


def test_weights_are_decoded_when_the_arena_had_another_owner(tmp_path: Path) -> None:
    artifact = clustered_model.compiled(tmp_path / "few", "host", "huffman", "boot")
    application = tmp_path / "application"
    write_reference_test(artifact, artifact.directory, application)
    lists = application / "CMakeLists.txt"
    owners = Path(__file__).with_name("owners.c")
    lists.write_text(lists.read_text() + f"target_sources(app PRIVATE {owners})\n")
    said = run(build(application, HOST_BOARD, tmp_path / "build"))
    assert "PASS - test_owners" in said
    assert "8 samples" in said
    assert SUCCESS in said


def test_devicetree_places_arena_weights_and_code(tmp_path: Path) -> None:
    artifact = example("intent", "qemu-m55", tmp_path / "intent")
    (tmp_path / "placement.overlay").write_text(PLACEMENT)
    image = reference(
        artifact,
        tmp_path,
        "mps3/corstone300/an547",
        f"-DEXTRA_DTC_OVERLAY_FILE={tmp_path / 'placement.overlay'}",
        "-DCONFIG_TVMTINY_INTENT_CODE_ITCM=y",
    )
    assert image.configuration("FPU") == "y"  # without it, no vectors
    assert image.symbol("arena")[0] in DTCM
    weights = image.symbols(r"intent_\w+_(weight|w[0-9qkvo]|gamma|beta)")
    assert len(weights) > 20
    assert all(address in DDR4 for address in weights.values())
    operators = {f"intent_{row['function']}" for row in artifact.metadata["operators"]}
    addresses = image.symbols("|".join(operators))
    assert set(addresses) == operators
    assert all(address in ITCM for address in addresses.values())
    assert SUCCESS in run(image)


def test_devicetree_chooses_any_region_for_the_arena(motion: Artifact, tmp_path: Path) -> None:
    (tmp_path / "region.overlay").write_text(REGION)
    overlay = f"-DEXTRA_DTC_OVERLAY_FILE={tmp_path / 'region.overlay'}"
    image = reference(motion, tmp_path, "mps2/an386", overlay)
    assert image.symbol("arena")[0] in range(0x20300000, 0x20310000)
    assert SUCCESS in run(image)


def test_a_model_may_be_left_out(motion: Artifact, intent: Artifact, tmp_path: Path) -> None:
    image = reference(motion, tmp_path, "mps2/an386", "-DCONFIG_TVMTINY_INTENT=n", other=intent)
    assert set(image.symbols(r"\w+_instance")) == {"motion_instance"}


def test_intent_sample_answers_in_the_shell(intent: Artifact, tmp_path: Path) -> None:
    image = build(
        EXAMPLES / "zephyr" / "intent", "mps2/an385", tmp_path, f"-DTVMTINY_MODEL={intent.directory}"
    )
    with running(image) as process:
        wait_for_shell(process, r"uart:~\$")
        assert "PlayMusic (9" in typed(process, "intent play some jazz", r"\(\d+\.\d %\)")
        assert f"intent: 32 tokens, arena {intent.arena_bytes} bytes at" in typed(
            process, "tvmtiny list", r"bytes at \S+"
        )
        typed(process, "tvmtiny bench intent 2", r"2 runs of 32 tokens")


def test_motion_sample_reads_a_sensor(motion: Artifact, tmp_path: Path) -> None:
    image = build(EXAMPLES / "zephyr" / "motion", HOST_BOARD, tmp_path, f"-DTVMTINY_MODEL={motion.directory}")
    assert any(label in run(image, r"\w+ \(\d+\.\d %\)") for label in motion.labels)


@pytest.mark.parametrize("board", ["mps2/an386", HOST_BOARD])
def test_cpp_sample_classifies(intent: Artifact, board: str, tmp_path: Path) -> None:
    image = build(EXAMPLES / "zephyr" / "cpp", board, tmp_path, f"-DTVMTINY_MODEL={intent.directory}")
    assert "GetWeather" in run(image, r"GetWeather|error")


def test_firmware_answers_on_its_serial_port(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, target = shared(tmp_path_factory, "post_norm", "qemu-m4"), load_target("qemu-m4")
    for name, value in toolchain(target.zephyr_board).items():
        monkeypatch.setenv(name, value)
    api = ProjectAPI("zephyr")
    api.generate_project(artifact, target, tmp_path / "application")
    api.build(strict=True)
    client = Client(api.open_transport())
    chosen = samples(artifact)
    try:
        assert client.open().model == artifact.name
        for sample, expected in zip(chosen, expected_outputs(artifact, chosen), strict=True):
            measured, data = client.run(sample_bytes(artifact, sample, 0), sample.n_tokens, 30)
            (info,) = artifact.outputs
            np.testing.assert_array_equal(output_tensors(artifact, data)[info.name], expected[info.name])
            assert 0 < measured.stack_bytes < target.stack_bytes
            assert measured.guard_bytes == 0
    finally:
        api.close_transport()


def test_firmware_tells_a_fault_and_has_its_arena_where_the_devicetree_says(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, target = shared(tmp_path_factory, "post_norm", "qemu-m4"), load_target("qemu-m4")
    for name, value in toolchain(target.zephyr_board).items():
        monkeypatch.setenv(name, value)
    api = ProjectAPI("zephyr")
    project = api.generate_project(artifact, target, tmp_path)
    (tmp_path / "app.overlay").write_text(REGION)
    model = tmp_path / "model" / f"{artifact.name}.c"
    begin = re.compile(rf"^int {artifact.name}_run\(.*\) \{{\n", re.MULTILINE)
    text, count = begin.subn(r"\g<0>  if (n_tokens == 1) __builtin_trap();\n", model.read_text())
    assert count == 1
    model.write_text(text)
    api.build(strict=True)
    arena = Image(target.zephyr_board, tmp_path / "build").symbol("memory")
    assert arena[0] in range(0x20300000, 0x20310000)
    assert arena[1] > artifact.arena_bytes
    client = Client(api.open_transport())
    data = sample_bytes(artifact, samples(artifact)[0], 0)
    try:
        client.open()
        with pytest.raises(DeviceStopped, match=r"fatal error \d+ at pc 0x\w{8}") as raised:
            client.run(data, 1, 30)
        assert f"{artifact.name}_run+0x" in with_function(project.elf, raised.value.said)
        client.open()  # it has started again
        assert client.run(data, 2, 30)[0].status == 0
    finally:
        api.close_transport()
