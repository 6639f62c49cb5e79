"""The text of every C file of a model, from templates."""

from __future__ import annotations

import dataclasses
import hashlib
import textwrap
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from tvmtiny import fewshot
from tvmtiny.codegen.program import Call, Constant, Program, Tensor
from tvmtiny.codegen.step import generate_context, step_context
from tvmtiny.codegen.symbols import c_comment, c_string, tensor_symbols
from tvmtiny.passes.step import SteppedModel
from tvmtiny.quant.qparams import QuantParams, feature_multipliers
from tvmtiny.resources import data_dir
from tvmtiny.schedule.variants import Variant
from tvmtiny.templates import jinja_environment

Array = npt.NDArray[Any]

LINE = 110

TEXT_BYTES = 512
"""Longest text of a model with a tokenizer, as data (`<name>_text_model`); its functions take any length."""


@dataclasses.dataclass(frozen=True)
class FeatureUse:
    """What a model with a front end says of it.

    Attributes:
        input: the input that takes the rows.
        samples: most samples of a recording that is given as data (`<name>_features_model`), each of `channels` values.
        audio: PCM; else samples of a sensor. finish: the recording's end completes rows.
        state_bytes: of the front end's state, at most.
    """

    input: str
    samples: int
    channels: int
    audio: bool
    finish: bool
    state_bytes: int


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What the C of a model says beyond its program.

    Attributes:
        name: C prefix.
        version: of tvmtiny.
        target: name of the target.
        description: one line about the source model.
        max_tokens: S; has_length: whether a run may take fewer.
        input_params: scaling of feature inputs by name (a column); limits: vocabulary by input name.
        paddings: ids by input name that must not stand among the present tokens.
        output_params: scaling of the outputs by name.
        labels: class names by output; may be empty.
        example: token ids or features of one calibration sample by input name, present tokens only.
        family: of the micro-kernels of operators whose schedule names no variant.
        text_input: the input of token ids that a tokenizer fills; None without a tokenizer.
        step: how the model runs in steps, of which max_tokens and has_length speak then; None for whole sequences.
        features: the front end that fills the input; None without one.
    """

    name: str
    version: str
    target: str
    description: str
    max_tokens: int
    has_length: bool
    input_params: dict[str, QuantParams]
    limits: dict[str, int]
    paddings: dict[str, tuple[int, ...]]
    output_params: dict[str, QuantParams]
    labels: dict[str, tuple[str, ...]]
    example: dict[str, Array]
    family: str
    text_input: str | None = None
    step: SteppedModel | None = None

    features: FeatureUse | None = None

    @property
    def takes_texts(self) -> bool:
        """Whether a whole text is a run; a model in steps takes a prompt to continue instead."""
        return self.text_input is not None and self.step is None


def c_type(dtype: str) -> str:
    """The C type of a NumPy integer type."""
    return f"{dtype}_t"


def template_environment() -> jinja2.Environment:
    """The templates of all emitted files."""
    environment = jinja_environment("tvmtiny.codegen")
    environment.filters.update(c_string=c_string, c_comment=c_comment)
    return environment


def c_sources(program: Program, info: ModelInfo) -> dict[str, str]:
    """File name (relative to the model's directory) -> text."""
    environment = template_environment()
    context = _context(program, info)
    name = info.name
    files = {
        f"{name}.h": "model.h.j2",
        f"{name}.c": "model.c.j2",
        f"{name}_weights.h": "weights.h.j2",
        f"{name}_weights.c": "weights.c.j2",
        "main.c": "main.c.j2" if info.step is None else "main_step.c.j2",
    }
    if info.takes_texts:
        files |= {f"{name}_text.h": "text.h.j2", f"{name}_text.c": "text.c.j2"}
    if context["generate"] is not None:
        files |= {f"{name}_generate.h": "generate.h.j2", f"{name}_generate.c": "generate.c.j2"}
    if info.features is not None:
        files |= {f"{name}_run_features.{kind}": f"run_features.{kind}.j2" for kind in "hc"}
    if context["variants"]:
        files[f"{name}_operators.h"] = "operators.h.j2"
    texts = {file: environment.get_template(template).render(context) for file, template in files.items()}
    operators = environment.get_template("operators.c.j2")
    for variant in context["variants"]:
        texts[f"{name}_{variant['symbol']}.c"] = operators.render(context, variant=variant)
    return texts | {f"include/{file}": text for file, text in _headers(program, info).items()}


def source_names(program: Program, info: ModelInfo) -> list[str]:
    """The C files that `c_sources` writes, but for front ends; operators of further variants have their own."""
    generates = generate_context(program, info.step, info.limits) is not None
    generator = [f"{info.name}_generate.c"] if generates else []
    others = (f"{info.name}_{Variant.parse(variant).symbol}.c" for variant in program.variants[1:])
    texts = [f"{info.name}_text.c"] if info.takes_texts else []
    return [f"{info.name}.c", *others, f"{info.name}_weights.c", *generator, *texts]


def _headers(program: Program, info: ModelInfo) -> dict[str, str]:
    """Those of the first variant lie flat, those of each other one in a folder, where they find each other."""
    extra = ["tvmt_fewshot.h"] if _embeddings(program) else []
    extra += [] if generate_context(program, info.step, info.limits) is None else ["tvmt_sample.h"]
    found = {
        file: (data_dir("microtvm_projects") / "common" / file).read_text("utf-8")
        for file in ("tvmt_model.h", "tvmt_classify.h", *extra)
    }
    main, *others = program.variants
    found |= Variant.parse(main).headers(_kernel_headers(program, info))
    for name in others:
        variant = Variant.parse(name)
        texts = variant.headers(program.microkernels(name) | {"tvmt_platform"})
        found |= {f"{variant.symbol}/{file}": text for file, text in texts.items()}
    return found


def _kernel_headers(program: Program, info: ModelInfo) -> set[str]:
    further = {"tvmt_quantize_q16_s8"} if info.input_params else set()
    further |= {"tvmt_norm_rate"} if _embeddings(program) else set()  # tvmt_fewshot.h takes its square root
    return program.microkernels(program.variants[0]) | further | {"tvmt_platform"}


def _is_row(tensor: Tensor) -> bool:
    return len(tensor.shape) == 2 and tensor.shape[0] == 1


def _embeddings(program: Program) -> list[Tensor]:
    """The outputs that are an embedding: one row of int8. A row of logits is int16."""
    return [
        tensor
        for tensor in program.outputs
        if _is_row(tensor) and tensor.dtype == "int8" and 1 < tensor.shape[1] <= fewshot.MOST
    ]


def _model_id(program: Program, info: ModelInfo) -> str:
    """32 bits that differ between models: whose embeddings a store holds."""
    digest = hashlib.sha256()
    for constant in program.constants:
        digest.update(constant.array.tobytes())
    for tensor in program.outputs:
        params = info.output_params[tensor.name]
        digest.update(f"{tensor.name} {params.scale} {params.zero_point};".encode())
    return f"0x{digest.hexdigest()[:8]}"


def _variant(name: str, program: Program, info: ModelInfo) -> dict[str, Any]:
    calls = [call for call in program.all_calls if call.function.variant == name]
    return {
        "name": name,
        "symbol": Variant.parse(name).symbol,
        "headers": sorted(program.microkernels(name) | {"tvmt_platform"}),
        "calls": [call_text(call, program, info.name) for call in calls],
    }


def _context(program: Program, info: ModelInfo) -> dict[str, Any]:
    symbols = tensor_symbols(info.name, program)
    constants = [*program.constants, *_input_constants(program, info, symbols)]
    return {
        **{field.name: getattr(info, field.name) for field in dataclasses.fields(info)},
        "NAME": info.name.upper(),
        "step": None if info.step is None else step_context(program, info.step),
        "generate": generate_context(program, info.step, info.limits),
        "plan": program.plan,
        "inputs": [_input(tensor, program, info, symbols) for tensor in program.inputs],
        "outputs": [_output(tensor, program, info, symbols) for tensor in program.outputs],
        "headers": sorted(_kernel_headers(program, info)),
        "model_id": _model_id(program, info),
        "init": program.ready is not None,
        "boot": [call_text(call, program, info.name) for call in program.boot],
        "ready": None if program.ready is None else program.plan.offsets[program.ready.buffer],
        "calls": [call_text(call, program, info.name) for call in program.calls],
        "variants": [_variant(name, program, info) for name in program.variants[1:]],
        "constants": [_constant(constant) for constant in constants],
        "weight_bytes": program.weight_bytes,
        "text_bytes": TEXT_BYTES,
        # Variables of main.c; a model of such a name has functions that begin like this.
        "example": "sample" if info.name.startswith("example") else "example",
        "q16": "real" if info.name.startswith("q16") else "q16",
    }


def _input(tensor: Tensor, program: Program, info: ModelInfo, symbols: dict[str, str]) -> dict[str, Any]:
    features = tensor.name in info.input_params
    about = (
        f"{tensor.shape[0]} x {tensor.shape[1]} int8 values, a row a token, scaled a column"
        if features
        else f"{tensor.shape[0]} token ids below {info.limits[tensor.name]}"
    )
    prefix = f"{info.name}_{symbols[tensor.buffer]}"
    return {
        **_tensor(tensor, program, symbols),
        "about": about,
        "rows": tensor.shape[0],
        "columns": tensor.shape[1] if features else 0,
        "padding": info.paddings.get(tensor.name, ()),
        "limit": 0 if features or info.limits[tensor.name] > 65535 else info.limits[tensor.name],
        "multiplier": f"{prefix}_multiplier",
        "zero_points": f"{prefix}_zero_point",
        "shift": feature_multipliers(info.input_params[tensor.name].scale)[1] if features else 0,
        "example": "" if features else c_list(info.example[tensor.name]),
    }


def _output(tensor: Tensor, program: Program, info: ModelInfo, symbols: dict[str, str]) -> dict[str, Any]:
    params = info.output_params[tensor.name]
    shape = " x ".join(str(extent) for extent in tensor.shape)
    # The labels of a model's first output bear the model's name alone: most models have no other.
    stem = info.name if tensor is program.outputs[0] else f"{info.name}_{symbols[tensor.buffer]}"
    by_token = info.has_length and tensor.shape[0] == info.max_tokens > 1
    return {
        **_tensor(tensor, program, symbols),
        "about": f"{shape} {tensor.dtype}; real = (value - ZERO_POINT) * SCALE"
        + (", a row a token, 0 for absent tokens" if by_token else ""),
        "row_bytes": tensor.bytes // tensor.shape[0] if by_token else 0,
        "classifier": _is_row(tensor) and tensor.dtype == "int16",
        "embedding": tensor in _embeddings(program),
        "labels": info.labels.get(tensor.name, ()),
        "labels_symbol": f"{stem}_labels",
        "label_count": f"{stem.upper()}_LABEL_COUNT",
        "zero_point": int(params.zero_point),
        "scale": f"{float(params.scale):.9g}",
        "scale_q32": round(float(params.scale) * 2**32),
    }


def _tensor(tensor: Tensor, program: Program, symbols: dict[str, str]) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "symbol": symbols[tensor.buffer],
        "ctype": c_type(tensor.dtype),
        "count": int(np.prod(tensor.shape)),
        "bytes": tensor.bytes,
        "offset": program.plan.offsets[tensor.buffer],
    }


def call_text(call: Call, program: Program, name: str) -> dict[str, Any]:
    """A call and its function as C: a function of a variant but the program's first has external linkage."""
    main = call.function.variant == program.variants[0]
    arguments = []
    for argument in call.arguments:
        if argument.constant:
            arguments.append(argument.constant)
        elif argument.tensor:
            qualifier = "const " if argument.parameter.role == "argument" else ""
            offset = program.plan.offsets[argument.tensor]
            arguments.append(f"AT({qualifier}{c_type(argument.parameter.dtype)}, {offset})")
        else:
            arguments.append("n_tokens" if argument.parameter.role == "length" else "position")
    return {
        "signature": _wrapped(
            f"TVMT_CODE_SECTION TVMT_OPERATOR {'static ' if main else ''}void {name}_{call.function.name}(",
            [argument.parameter.declaration for argument in call.arguments],
        ),
        "main": main,
        "statement": _wrapped(f"  {name}_{call.function.name}(", arguments),
        "body": call.function.body,
        "comment": _describe(call, program),
    }


def _wrapped(start: str, items: list[str]) -> str:
    """`start` and the items of a list in parentheses, in lines of LINE characters that end between items."""
    text = ", ".join(items) + ")"
    if len(start) + len(text) <= LINE:
        return start + text
    indent = " " * 4 if not start.startswith(" ") else " " * 6
    lines = [start]
    for item in [*(f"{item}," for item in items[:-1]), f"{items[-1]})"]:
        if len(lines) == 1 or len(lines[-1]) + 1 + len(item) > LINE:
            lines.append(indent + item)
        else:
            lines[-1] += f" {item}"
    return "\n".join(lines)


def _describe(call: Call, program: Program) -> str:
    result = next(a.tensor for a in call.arguments if a.parameter.role == "output")
    source = program.plan.in_place.get(result)
    return f"{call.function.kernel}: {result}{f', in place of {source}' if source else ''}"


def _input_constants(program: Program, info: ModelInfo, symbols: dict[str, str]) -> list[Constant]:
    constants = []
    for tensor in program.inputs:
        if tensor.name not in info.input_params:
            continue
        params = info.input_params[tensor.name]
        prefix = f"{info.name}_{symbols[tensor.buffer]}"
        multiplier, _ = feature_multipliers(params.scale)
        constants.append(Constant(f"{prefix}_multiplier", multiplier))
        constants.append(Constant(f"{prefix}_zero_point", np.asarray(params.zero_point, np.int32)))
    return constants


def _constant(constant: Constant) -> dict[str, Any]:
    return {
        "symbol": constant.symbol,
        "ctype": c_type(constant.dtype),
        "count": constant.array.size,
        "shape": " x ".join(str(extent) for extent in constant.array.shape),
        "initializer": c_values(constant.array),
    }


def c_list(array: Array) -> str:
    """The elements of an array between braces, on one line if they are few."""
    text = ", ".join(str(value) for value in array.reshape(-1).tolist())
    return f"{{{text}}}" if len(text) <= LINE // 2 else f"{{\n{c_values(array)}\n}}"


def c_values(array: Array) -> str:
    """The elements of an array as the inside of a C initializer."""
    flat = array.reshape(-1)
    texts: Sequence[str] = [str(value) for value in flat.tolist()]
    if array.dtype == np.int32:
        texts = [text if text != "-2147483648" else "(-2147483647 - 1)" for text in texts]
    elif array.dtype == np.uint32:
        texts = [f"{text}u" for text in texts]
    return textwrap.fill(", ".join(texts), LINE, initial_indent="    ", subsequent_indent="    ") + ","
