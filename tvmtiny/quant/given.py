"""The scales of a model that its author has quantized, found again behind fusion by what tensors hold.

`passes.strip_quantization` leaves the float graph and a list of its tensors that have a scale. Fusion rewrites that
graph, in ways that need not be known here: the imported and the fused module run on the same random inputs, and a value
of the fused one has the scale of the tensor of the imported one that holds the same numbers, in whatever order. A
tensor that fusion has removed (scores of attention, steps of a GELU) is found nowhere, and its scale has no use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from tvmtiny.frontend.data import Batch, InputSpec
from tvmtiny.passes.graph import Emit, Graph, op_name, rebuild, shape_of
from tvmtiny.passes.strip_quantization import GIVEN_ATTRIBUTE
from tvmtiny.passes.views import trace
from tvmtiny.quant.calibrate import FloatModel
from tvmtiny.quant.qparams import QuantParams

Array = npt.NDArray[Any]

SEED = 2026
PROBES = 4
"""Random inputs on which tensors are compared; each must agree."""

SPREAD = 32.0
"""Standard deviation of a random feature, in steps of its scale: the range is that of 4 deviations either way."""

TOLERANCE = 1e-4
"""Of the largest magnitude of a tensor: fusion only reorders float32 arithmetic."""

CONTROL = 1.01
"""Times a value: a number of about its size that the tensor which holds the value need not hold."""

NEARER = 10.0
"""How much nearer, in the median, a tensor's elements must be to values of its own than to such controls."""

LEAST_DISTINCT = 3
"""A value with fewer different elements over all probes could be any tensor's."""


def is_given(module: tvm.IRModule) -> bool:
    """Whether a module, imported or fused, comes from a model with scales of its own."""
    return GIVEN_ATTRIBUTE in dict(module["main"].attrs or {})


def input_params(imported: tvm.IRModule) -> dict[str, QuantParams]:
    """Parameters of the inputs of features that have a scale, an entry for each element.

    An input that is scaled and shifted by constants before it is quantized takes these into its parameters: with
    y = a x + b = s (q - z) follows x = s / a (q - (z + b / s)). This zero point is real: it need not be whole.
    """
    graph, found = Graph(imported["main"]), {}
    for name, params in _given(imported).items():
        var = next(var for var, _ in graph if var.name == name)
        view = trace(graph, var, affine=True)
        if not any(view.root.same_as(param) for param in graph.params) or view.root.name in found:
            continue
        in_order = np.array_equal(view.index.reshape(-1), np.arange(np.prod(shape_of(view.root))))
        if in_order and np.all(view.scale > 0):
            zero_point = params.zero_point + view.offset / params.scale
            found[view.root.name] = QuantParams(
                (params.scale / view.scale).reshape(-1), zero_point.reshape(-1)
            )
    return found


def given_parameters(imported: tvm.IRModule, float_model: FloatModel, batch: Batch) -> dict[str, QuantParams]:
    """The parameters of the values of a fused module, by the names `<variable>.<value>` of `quant.calibrate`.

    Args:
        float_model: of the fused module. batch: PROBES random inputs with all tokens present.
    """
    given = _given(imported)
    if not given:
        return {}
    runs = _run(imported, list(given), batch)
    whole = {name: [np.sort(run[name], axis=None) for run in runs] for name in given}
    traces = [
        float_model.run({name: array[row] for name, array in batch.arrays.items()}, int(batch.n_tokens[row]))
        for row in range(len(batch))
    ]
    found = {}
    for key in traces[0].values:
        match = _match([trace.values[key] for trace in traces], whole)
        if match is not None:
            found[key] = given[match]
    return found


def random_batch(
    specs: Sequence[InputSpec],
    inputs: dict[str, QuantParams],
    tokens: int,
    count: int,
    *,
    lengths: bool = False,
) -> Batch:
    """Random inputs: ids of the vocabulary, features around the middle of their parameters' range.

    Args:
        inputs: of `input_params`; features without are normally distributed.
        lengths: whether the number of present tokens is random, too; all of them otherwise.
    """
    random = np.random.default_rng(SEED)
    arrays = {spec.name: _random(spec, inputs.get(spec.name), (count, *spec.shape), random) for spec in specs}
    present = np.full(count, tokens)
    if lengths:
        present[1:] = random.integers(1, tokens + 1, count - 1)
    return Batch(arrays, present)


def _random(
    spec: InputSpec, params: QuantParams | None, shape: tuple[int, ...], random: np.random.Generator
) -> Array:
    if spec.kind == "tokens":
        usable = np.setdiff1d(np.arange(max(1, spec.limit)), spec.padding)
        return random.choice(usable, shape)
    if params is None:
        return random.normal(size=shape).astype(np.float32)
    steps = np.clip(random.normal(-0.5, SPREAD, (shape[0], params.scale.size)), -128, 127)
    return ((steps - params.zero_point) * params.scale).reshape(shape).astype(np.float32)


def _given(imported: tvm.IRModule) -> dict[str, QuantParams]:
    rows = dict(dict(imported["main"].attrs or {}).get(GIVEN_ATTRIBUTE, {}))
    return {str(name): QuantParams(float(row[0]), int(row[1])) for name, row in rows.items()}


def _run(imported: tvm.IRModule, names: list[str], batch: Batch) -> list[dict[str, Array]]:
    """The values of variables of an imported module on each input; a mask, which `batch` lacks, marks all tokens."""
    main = imported["main"]
    variables = {var.name: var for var, _ in Graph(main)}
    module = tvm.IRModule()
    module["main"] = rebuild(main, _checked, outputs=[variables[name] for name in names])
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    runs = []
    for row in range(len(batch)):
        arrays = [
            batch.arrays[param.name][row : row + 1]
            if param.name in batch.arrays
            else np.ones(shape_of(param))
            for param in main.params
        ]
        types = [str(param.ty.dtype) for param in main.params]
        arguments = [
            tvm.runtime.tensor(array.astype(dtype)) for array, dtype in zip(arrays, types, strict=True)
        ]
        results = [value.numpy() for value in machine["main"](*arguments)]
        runs.append(dict(zip(names, results[len(results) - len(names) :], strict=True)))
    return runs


def _checked(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    """Gathers that look at their indices: of the other kind TVM warns on standard error."""
    if not isinstance(value, relax.Call) or op_name(value) != "take":
        return None
    data, index = value.args
    return relax.op.take(data, index, axis=value.attrs.axis, mode="clip")


def _match(parts: list[Array], whole: dict[str, list[Array]]) -> str | None:
    """The tensor that holds the numbers of a value, on each probe: one of the same size if there is any."""
    flat = [np.sort(part, axis=None) for part in parts]
    if len(np.unique(np.concatenate(flat))) < LEAST_DISTINCT:
        return None
    for same_size in (True, False):
        for name, candidates in whole.items():
            sized = all(len(c) == len(f) for c, f in zip(candidates, flat, strict=True))
            agrees = _equal if same_size else _contained
            if sized == same_size and all(agrees(f, c) for f, c in zip(flat, candidates, strict=True)):
                return name
    return None


def _equal(part: Array, whole: Array) -> bool:
    return bool(np.abs(part - whole).max() <= TOLERANCE * np.abs(whole).max())


def _contained(part: Array, whole: Array) -> bool:
    """Whether each element of a sorted array is one of another, or 0, which padding adds and every scale has.

    Among 10**4 elements any number is near to one. So elements must be nearer than others of their size are.
    """
    part = part[part != 0]
    if not len(part) or len(whole) < 2:
        return False
    near, by_chance = _nearest(part, whole), _nearest(part * CONTROL, whole)
    return bool(
        near.max() <= TOLERANCE * np.abs(whole).max() and NEARER * np.median(near) <= np.median(by_chance)
    )


def _nearest(part: Array, whole: Array) -> Array:
    """How far the nearest element of a sorted array is from each of another."""
    after = np.searchsorted(whole, part).clip(1, len(whole) - 1)
    return np.minimum(np.abs(whole[after] - part), np.abs(whole[after - 1] - part))
