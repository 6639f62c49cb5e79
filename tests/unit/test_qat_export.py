"""What is exported of a module that was trained on integers compiles to these integers; what cannot be is refused."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from quantized_families import family_task, fused_family, quantized_family, tensors  # noqa: E402  torch may be missing

from tvmtiny.compress.calibrated import batch, statistics_of  # noqa: E402
from tvmtiny.compress.export import to_fused  # noqa: E402
from tvmtiny.compress.fused_module import FusedModule  # noqa: E402
from tvmtiny.compress.quantized_module import QuantizedModule  # noqa: E402
from tvmtiny.errors import UserError  # noqa: E402
from tvmtiny.frontend.data import input_specs  # noqa: E402
from tvmtiny.passes.quantize import quantize  # noqa: E402
from tvmtiny.passes.weight_types import weight_types  # noqa: E402
from tvmtiny.quant.calibrate import Statistics  # noqa: E402
from tvmtiny.quant.reference import IntegerModel, integer_inputs  # noqa: E402
from tvmtiny.quant.scales import read_scales  # noqa: E402

HANDED_OVER = ("bert_types", "id_mask", "llama_like", "local_text", "strided", "albert")
"""Tables of types; plain; rotary positions, grouped heads, gates and RMSNorm; a window; convolutions; shared layers."""
REFUSED = {"conv1d_stem": "neither an input nor the result", "query_pooling": "softmax"}


@pytest.mark.parametrize("name", HANDED_OVER)
def test_what_is_exported_quantizes_to_the_integers_of_the_forward(name: str) -> None:
    module, task = quantized_family(name)
    exported = to_fused(module, task)
    options = module.options(exported)
    given = read_scales(options["scales"], options["scales"])
    again = quantize(
        exported, Statistics([], given), weights=weight_types(exported, "int8", options["layer_weights"]),
        rounding=options["rounding"],
    )  # fmt: skip
    samples, specs = batch(exported, task.calibration), input_specs(exported)[0]
    reference = IntegerModel(again.module)
    found = module.integers(*tensors(task.calibration).values())
    for index in range(len(samples)):
        rows = integer_inputs(again, specs, {k: a[index] for k, a in samples.arrays.items()})
        results = reference.run(rows, int(samples.n_tokens[index]))
        for ours, theirs in zip(module.quantized().outputs, again.outputs, strict=True):
            assert np.array_equal(found[ours][index].numpy(), results[theirs]), (index, theirs)


@pytest.mark.parametrize("layer", ["node_layer_norm_3", "node_layer_norm_4"])
def test_layers_of_different_types_that_share_a_matrix_share_no_steps(layer: str) -> None:
    """Rows of one group: there, steps of int4 are of the same shape as those of int8, and 16 times as large."""
    fused, task = fused_family("albert"), family_task("albert")
    types = weight_types(fused, "int8", {layer: "int4"})
    start = quantize(fused, statistics_of(fused, task), weights=types, rounding="nearest")
    found = QuantizedModule(fused, list(task.calibration), start, types).quantized().matrices
    assert any(name.startswith(layer) for name in found)
    for name, weights in start.matrices.items():
        assert np.allclose(found[name].real, weights.real, rtol=1e-6), name


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused_by_name(name: str) -> None:
    fused = fused_family(name)
    with pytest.raises(UserError, match=REFUSED[name]):
        FusedModule(fused, ["x"])


def test_another_model_is_not_taken_for_the_trained_one() -> None:
    module, _ = quantized_family("id_mask")
    with pytest.raises(UserError, match="not the one that was trained"):
        module.options(fused_family("rms_norm"))
