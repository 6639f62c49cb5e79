"""metadata.json: everything that a program wants to know of a compiled model. Schema: docs/metadata.md."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np

from tvmtiny.artifact import SCHEMA
from tvmtiny.codegen.c_sources import ModelInfo, source_names
from tvmtiny.codegen.program import Call, Program, Tensor
from tvmtiny.codegen.step import step_metadata
from tvmtiny.frontend.data import InputSpec
from tvmtiny.kernels import Blocking, Operands, kernel_of, operands_of
from tvmtiny.kernels.weights import weights_type
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.quantize import QuantizedModel
from tvmtiny.quant.qparams import QuantParams
from tvmtiny.schedule.records import BORROWED, DEFAULT, Chosen, TunedRule
from tvmtiny.schedule.space import describe
from tvmtiny.storage.choice import AS_THEY_ARE
from tvmtiny.target import Target


def metadata(
    program: Program,
    info: ModelInfo,
    target: Target,
    specs: list[InputSpec],
    length_input: str | None,
    quantized: QuantizedModel,
    quality: dict[str, Any],
    model_hash: str,
    rule: TunedRule,
) -> dict[str, Any]:
    """The contents of metadata.json less the hashes of the files."""
    operators = _operators(program, quantized, rule)
    return {
        "schema": SCHEMA,
        "name": info.name,
        "target": target.name,
        "cpu": target.cpu,
        "family": info.family,
        "schedules": rule.objective,
        "versions": {"tvmtiny": info.version, "tvm": importlib.metadata.version("apache-tvm")},
        "model": {"source": info.description, "sha256": model_hash},
        "inputs": [_input(tensor, program, info, specs) for tensor in program.inputs],
        "outputs": [_output(tensor, program, info) for tensor in program.outputs],
        "max_tokens": info.max_tokens,
        "has_length": info.has_length,
        "length_input": length_input,
        "step": step_metadata(program, info.step, info.limits),
        "tokenizer": None,
        "features": None,
        "arena": program.plan.to_json(),
        "residual": _residual(program, quantized),
        "storage": _storage(program),
        "operators": operators,
        "figures": {
            "weight_bytes": program.weight_bytes,
            "macs": sum(row["macs"] for row in operators),
        },
        "quality": quality,
        "sources": source_names(program, info),
        "include_dirs": [".", "include"],
    }


def _residual(program: Program, quantized: QuantizedModel) -> dict[str, Any]:
    """The tensors between layers that are int16, and how much larger than in int8 the largest is."""
    sizes = [buffer.bytes for buffer in program.plan.buffers if buffer.name in quantized.int16]
    return {
        "dtype": "int16" if quantized.int16 else "int8",
        "tensors": list(quantized.int16),
        "extra_bytes": max(sizes, default=0) // 2,
    }


def _operators(program: Program, quantized: QuantizedModel, rule: TunedRule) -> list[dict[str, Any]]:
    rows = []
    steps = iter(
        (var.name, value) for var, value in Graph(quantized.module["main"]) if kernel_of(value) is not None
    )
    for call in program.calls:
        if call.decodes:
            rows.append(_decoder(call))
            continue
        name, value = next(steps)
        kernel = kernel_of(value)
        assert kernel is not None
        rows.append(
            {
                "name": name,
                "kernel": kernel.name,
                "variant": kernel.variant(operands_of(value)),
                "function": call.function.name,
                "weights": _stored(operands_of(value), call),
                "macs": kernel.macs(operands_of(value), quantized.max_tokens),
                "macs_by_tokens": _polynomial(
                    functools.partial(kernel.macs, operands_of(value)), quantized.max_tokens
                ),
                **_function(call),
                **_schedule(rule.choose(kernel, operands_of(value))),
            }
        )
    return rows


def _decoder(call: Call) -> dict[str, Any]:
    """The row of an operator that decodes weights."""
    return {
        "name": call.result,
        "kernel": call.function.kernel,
        "variant": "",
        "function": call.function.name,
        "weights": None,
        "macs": 0,
        "macs_by_tokens": [0, 0, 0],
        **_function(call),
        "schedule": describe(Blocking()),
        "schedule_origin": DEFAULT,
        "schedule_from": None,
    }


def _function(call: Call) -> dict[str, Any]:
    """What an operator's function takes."""
    return {
        "steps": call.function.steps,
        "scratch_bytes": sum(a.parameter.bytes for a in call.arguments if a.parameter.role == "scratch"),
        "microkernels": sorted(call.function.microkernels),
        "microkernel_variant": call.function.variant,
    }


def _storage(program: Program) -> dict[str, Any]:
    """What was to be compressed and what is, and what that saves in flash and takes of the arena."""
    sizes = {constant.symbol: constant.array.nbytes for constant in program.constants}
    decoders = {
        call.constants[0]: call for call in program.all_calls if call.decodes
    }  # a matrix may be used twice
    stored = {symbol for call in decoders.values() for symbol in call.constants}
    plain = sum(call.function.plain_bytes for call in decoders.values())
    return {
        "form": program.storage.form,
        "decode": None if program.storage == AS_THEY_ARE else program.storage.place,
        "plain_bytes": plain,
        "stored_bytes": sum(sizes[symbol] for symbol in stored),
        "decoded_bytes": program.decoded_bytes,
        "boot": [_decoder(call) for call in program.boot],
    }


def _schedule(chosen: Chosen) -> dict[str, Any]:
    """What an operator's schedule is and where it comes from."""
    record = chosen.record if chosen.origin == BORROWED else None
    return {
        "schedule": describe(chosen.blocking),
        "schedule_origin": chosen.origin,
        "schedule_from": None if record is None else record.signature.text,
    }


def _stored(operands: Operands, call: Call) -> str | None:
    """How flash holds the weights of an operator: their type, or int16 for values of int8 that are stored wide."""
    wide = any(a.constant and a.parameter.dtype == "int16" for a in call.arguments)
    return "int16" if wide else weights_type(operands)


def _polynomial(macs: Callable[[int], int], max_tokens: int) -> list[int] | None:
    """Coefficients c with macs(n) = c[0] + c[1] n + c[2] n^2 for every number of tokens; None if there are none."""
    one, two, three = macs(1), macs(2), macs(3)
    square = (three - 2 * two + one) // 2
    linear = two - one - 3 * square
    found = [one - linear - square, linear, square]
    exact = all(macs(n) == found[0] + found[1] * n + found[2] * n * n for n in range(1, max_tokens + 1))
    return found if exact else None


def _input(tensor: Tensor, program: Program, info: ModelInfo, specs: list[InputSpec]) -> dict[str, Any]:
    spec = next(spec for spec in specs if spec.name == tensor.name)
    params = info.input_params.get(tensor.name)
    return {
        **_tensor(tensor, program, params),
        "kind": spec.kind,
        "limit": spec.limit,
        "padding": list(spec.padding),
        "model_shape": list(spec.shape),
    }


def _output(tensor: Tensor, program: Program, info: ModelInfo) -> dict[str, Any]:
    return {
        **_tensor(tensor, program, info.output_params[tensor.name]),
        "kind": "output",
        "labels": list(info.labels.get(tensor.name, ())),
    }


def _tensor(tensor: Tensor, program: Program, params: QuantParams | None) -> dict[str, Any]:
    scale = np.atleast_1d(params.scale).tolist() if params else []
    zero_point = np.atleast_1d(params.zero_point).tolist() if params else []
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "arena_offset": program.plan.offsets[tensor.buffer],
        "bytes": tensor.bytes,
        "scale": scale,
        "zero_point": zero_point,
    }
