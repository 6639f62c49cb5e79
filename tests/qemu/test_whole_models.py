"""Whole models: NumPy reference, TVM on LLVM, C on the host and C on every emulated core give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from model_cases import CASES, samples, shared
from tvm import relax

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model
from tvmtiny.frontend.data import load_samples
from tvmtiny.kernels import kernels
from tvmtiny.passes.lower import Lower
from tvmtiny.report.profile import profile
from tvmtiny.runner import Sample, run
from tvmtiny.schedule.rules import blocking
from tvmtiny.verify import INTEGER_MODULE, expected_outputs

CORES = ("qemu-m0", "qemu-m3", "qemu-m4", "qemu-m7", "qemu-m33", "qemu-m55")
BOARDS = ("stm32f746", "rp2040")
PLANS = [
    *(("qemu-m55", case) for case in ("odd_sizes", "narrow_heads", "sensor_encoder", "folded")),
    *(("qemu-m7", case) for case in ("odd_sizes", "narrow_heads", "sensor_encoder", "folded", "many_tokens")),
    *((target, "many_tokens_odd_heads") for target in ("qemu-m4", "qemu-m7", "qemu-m55")),
]
"""Further targets, with schedules, memory plans and micro-kernels of their own."""
INTENT = Path(__file__).parents[2] / "examples" / "intent"

Outputs = list[dict[str, np.ndarray]]


@pytest.fixture(params=CASES)
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Compiled for a core with DSP: the C has a portable twin of every micro-kernel for the other cores."""
    return shared(tmp_path_factory, request.param, "qemu-m4")


def _on_llvm(artifact: Artifact, chosen: list[Sample]) -> Outputs:
    """The lowered integer module, built by TVM for the host CPU."""
    kernels()
    module = tvm.ir.load_json((artifact.directory / INTEGER_MODULE).read_text())
    rule = blocking(artifact.metadata["family"])
    machine = relax.VirtualMachine(tvm.compile(Lower(rule)(module), target="llvm"), tvm.cpu())
    results = []
    for sample in chosen:
        arguments: list[Any] = [tvm.runtime.tensor(sample.inputs[info.name]) for info in artifact.inputs]
        arguments += [sample.n_tokens] if artifact.has_length else []
        found = machine["main"](*arguments)
        tensors = [found] if len(artifact.outputs) == 1 else list(found)
        results.append(
            {
                info.name: _present(tensor.numpy().reshape(info.shape), sample.n_tokens, artifact)
                for info, tensor in zip(artifact.outputs, tensors, strict=True)
            }
        )
    return results


def _present(values: Any, n: int, artifact: Artifact) -> Any:
    """Rows of absent tokens, which TVM's functions leave undefined, as zeros."""
    if len(values) == artifact.max_tokens:
        values[n:] = 0
    return values


def _equal(one: Outputs, other: Outputs) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys()
        and all(a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


def test_samples_have_the_lengths_that_matter(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = shared(tmp_path_factory, "post_norm", "qemu-m4")
    lengths = [sample.n_tokens for sample in samples(made)]
    assert len(lengths) >= 6
    assert lengths[0] == 1
    assert lengths[1] % 2 == 1
    assert lengths[2] == made.max_tokens


def test_results_depend_on_the_input(artifact: Artifact) -> None:
    """Equal bytes everywhere would say little of a model that always answers the same."""
    found = {
        outputs[artifact.outputs[0].name].tobytes()
        for outputs in expected_outputs(artifact, samples(artifact))
    }
    assert len(found) >= 5


def test_tvm_on_the_host_gives_the_bytes_of_the_reference(artifact: Artifact) -> None:
    chosen = samples(artifact)
    assert _equal(_on_llvm(artifact, chosen), expected_outputs(artifact, chosen))


def test_c_on_the_host_gives_the_bytes_of_the_reference(artifact: Artifact) -> None:
    chosen = samples(artifact)
    result = run(artifact, "host", chosen, target="host", repeat=2)
    assert result.status == [0] * len(chosen)
    assert _equal(result.outputs, expected_outputs(artifact, chosen))


@pytest.mark.qemu
@pytest.mark.parametrize("core", CORES)
def test_c_on_an_emulated_core_gives_the_bytes_of_the_reference(artifact: Artifact, core: str) -> None:
    chosen = samples(artifact)
    result = run(artifact, "qemu", chosen, target=core)
    assert result.status == [0] * len(chosen)
    assert _equal(result.outputs, expected_outputs(artifact, chosen))


@pytest.mark.parametrize(("target", "case"), PLANS)
def test_c_planned_for_another_core_gives_the_bytes_of_the_reference_on_the_host(
    target: str, case: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = shared(tmp_path_factory, case, target)
    chosen = samples(made)
    result = run(made, "host", chosen, target="host")
    assert result.status == [0] * len(chosen)
    assert _equal(result.outputs, expected_outputs(made, chosen))


@pytest.mark.qemu
@pytest.mark.parametrize(("target", "case"), PLANS)
def test_c_planned_for_another_core_gives_the_bytes_of_the_reference_there(
    target: str, case: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = shared(tmp_path_factory, case, target)
    chosen = samples(made)
    result = run(made, "qemu", chosen)
    assert result.status == [0] * len(chosen)
    assert _equal(result.outputs, expected_outputs(made, chosen))


@pytest.mark.qemu
@pytest.mark.parametrize("board", BOARDS)
def test_c_compiled_for_a_board_gives_the_same_bytes(
    board: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = shared(tmp_path_factory, "narrow_heads", board)
    chosen = samples(made)
    result = run(made, "qemu", chosen)
    assert result.status == [0] * len(chosen)
    assert _equal(result.outputs, expected_outputs(made, chosen))


@pytest.fixture(scope="module")
def intent(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return compile_model(
        INTENT / "model.onnx",
        target="stm32f746",
        calibration=INTENT / "calibration.npz",
        labels=INTENT / "labels.txt",
        output=tmp_path_factory.mktemp("shipped") / "intent",
    )


@pytest.mark.qemu
def test_the_shipped_intent_model_gives_the_same_bytes_everywhere(intent: Artifact) -> None:
    chosen = load_samples(intent, INTENT / "sample.npz")
    expected = expected_outputs(intent, chosen)
    assert len(chosen) >= 6
    assert _equal(_on_llvm(intent, chosen), expected)
    for target in ("host", "stm32f746", "qemu-m0-large", *CORES):
        result = run(intent, "host" if target == "host" else "qemu", chosen, target=target)
        assert result.status == [0] * len(chosen), target
        assert _equal(result.outputs, expected), target


@pytest.mark.qemu
def test_half_the_tokens_take_less_than_half_the_instructions(intent: Artifact) -> None:
    """Absent tokens cost nothing, and attention shrinks with the square."""
    (ids,) = (info.name for info in intent.inputs)
    inputs = {ids: np.arange(intent.max_tokens, dtype=np.uint16)}
    whole, half = (profile(intent, Sample(inputs, n)).instructions for n in (32, 16))
    assert intent.max_tokens == 32
    assert half < whole / 2
