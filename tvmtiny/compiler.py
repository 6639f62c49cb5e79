"""The compiler: the one place where the order of its steps is written."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm

from tvmtiny import __version__
from tvmtiny.artifact import METADATA_FILE, Artifact
from tvmtiny.calibration import Calibration, calibrate, smoothed
from tvmtiny.codegen.build_files import build_files
from tvmtiny.codegen.c_sources import ModelInfo, c_sources
from tvmtiny.codegen.directory import (
    check_output,
    replaced_directory,
    to_json,
    write_files,
)
from tvmtiny.codegen.metadata import metadata
from tvmtiny.codegen.prefix import c_prefix
from tvmtiny.codegen.program import Program
from tvmtiny.errors import UserError
from tvmtiny.features.attach import (
    AttachedFeatures,
    FeatureChoice,
    attach_features,
    choose_features,
    periods,
)
from tvmtiny.frontend import import_model
from tvmtiny.frontend.data import Batch, InputSpec, check_arrays, input_specs, read_npz
from tvmtiny.frontend.labels import LabelSource, read_labels
from tvmtiny.frontend.opening import model_stem, open_model
from tvmtiny.frontend.source import check_source
from tvmtiny.frontend.supported import check_fused
from tvmtiny.lowering import OnStage, Stages, build_tuned, check_flash
from tvmtiny.options import ModelOptions
from tvmtiny.passes.quantize import QuantizedModel
from tvmtiny.passes.step import SteppedModel
from tvmtiny.quant import verification
from tvmtiny.quant.calibrate import Trace
from tvmtiny.quant.given import input_params, is_given, random_batch
from tvmtiny.quant.qparams import QuantParams
from tvmtiny.quant.reference import IntegerModel, integer_inputs, without_absent_rows
from tvmtiny.quant.report import Quality
from tvmtiny.quant.scales import ScaleSource
from tvmtiny.schedule.rules import family
from tvmtiny.target import Target, load_target
from tvmtiny.tokenizer.attach import AttachedTokenizer, attach_tokenizer
from tvmtiny.verify import INTEGER_MODULE, STEP_MODULE

Array = npt.NDArray[Any]
Data = Path | str | Mapping[str, Array]

CALIBRATION_MINIMUM = 8
"""Fewer samples than this say too little about ranges."""

REFERENCE_SAMPLES = 8
"""Calibration samples whose input and output bytes are kept beside the model."""

QUALITY_SAMPLES = 64
"""Calibration samples over which the integer model is compared with the float model."""


def compile(  # noqa: A001 - the verb of the command line
    model: Any,
    *,
    target: str,
    calibration: Path | str | Mapping[str, Array] | None = None,
    name: str | None = None,
    labels: LabelSource | Mapping[str, LabelSource] | None = None,
    tokenizer: Path | str | None = None,
    features: Path | str | None = None,
    max_tokens: int | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
    range_method: str = "auto",
    fold_qk: str = "auto",
    weights: str = "int8",
    layer_weights: Mapping[str, str] | None = None,
    compress_weights: str = "none",
    decode: str = "tile",
    residual: str = "int8",
    step: int | None = None,
    int16: Sequence[str] = (),
    scales: ScaleSource | None = None,
    rounding: str = "auto",
    bias_correction: bool = False,
    smooth: bool = False,
    tuned: str = "balanced",
    verify: Path | str | Mapping[str, Array] | None = None,
    dump_dir: Path | str | None = None,
    output: Path | str | None = None,
    on_stage: OnStage | None = None,
) -> Artifact:
    """Compile a trained model to a directory of C.

    Args:
        model: path of an .onnx or .pt2 file, `hf:DIR` (a Hugging Face model directory), or a torch ExportedProgram.
        target: name of a target (`tvmtiny targets`).
        calibration: .npz file, or arrays by input name, samples along the first axis. A model that its author has
            quantized, with a scale for every tensor, needs none.
        name: C prefix; the output directory's name when None.
        labels: file with a class name a line, or the names: of the first output, or of outputs by name. A Hugging
            Face directory's own are taken when None; so is its tokenizer.
        tokenizer: tokenizer.json that the model was trained with; the C then takes text.
        features: description (TOML) of the front end that the model was trained with; the C then takes PCM, or raw
            samples of a sensor.
        max_tokens: size of a dynamic token axis.
        shapes: sizes of dynamic inputs by name, batch included.
        range_method: one of `quant.ranges.METHODS`.
        fold_qk: one of `passes.fold_query_key.MODES`: where Q K^T becomes one matrix a head.
        weights: of dense layers in flash, one of WEIGHTS: "int8"; "int4" with group scales, but for embeddings and the
            first and last dense layer; "int16" for the values of int8, in fewer instructions on Cortex-M4 and M33.
        layer_weights: "int8" or "int4" for single layers by name, before `weights`.
        compress_weights: one of `storage.choice.FORMS`: whether flash holds weights and embeddings in Huffman codes or
            as indices into codebooks, where that is shorter.
        decode: one of `storage.choice.PLACES`: when compressed weights are decoded.
        residual: element type of the residual stream, "int8" or "int16": what is only added, normalised and pooled.
        step: tokens of a step: the C takes the next tokens of a sequence and keeps what it needs of earlier ones
            (docs/streaming.md); None: it takes whole sequences.
        int16: layers, by name or by pattern, whose results are to be int16; `passes.int16_layers` says which can be.
        scales: scales and zero points of single values (`quant.scales`), before those of calibration or of the model.
        rounding: of weights, one of `quant.qparams.ROUNDINGS`: "nearest"; "gptq", by calibration data; "auto", which
            is "gptq" for int4.
        bias_correction: whether biases take off the mean error that the rounding of weights makes in calibration.
        smooth: whether outlier columns of activations may move into weights (`passes.smooth`).
        tuned: which records of `tvmtiny tune` decide on schedules, by their objective: "latency" (which may store
            weights as int16), "flash", "balanced"; "none" for the rules alone.
        verify: data as for `calibration`, `labels` too if there are any, over which float and integer model are
            compared; the result is `quality.verification` of the metadata.
        dump_dir: where to write what stands after each step.
        output: directory to write; build/<model> when None.
        on_stage: called after each step with its name and its seconds.

    Raises:
        UserError: the input cannot be used; nothing is written then.
    """
    board = load_target(target)
    directory = Path(output) if output is not None else Path("build") / model_stem(model)
    prefix = c_prefix(name if name is not None else directory.name)
    check_output(directory)
    options = ModelOptions(
        max_tokens=max_tokens,
        shapes=shapes,
        range_method=range_method,
        fold_qk=fold_qk,
        weights=weights,
        layer_weights=layer_weights,
        rounding=rounding,
        bias_correction=bias_correction,
        smooth=smooth,
        compress_weights=compress_weights,
        decode=decode,
        residual=residual,
        step=step,
        int16=int16,
        tuned=tuned,
    )
    _check_features(features, step)
    microkernels = family(board, weights)
    stages = Stages(on_stage, Path(dump_dir) if dump_dir is not None else None)

    with stages("import"):
        opened = open_model(model, shapes, max_tokens)
        module = stages.dump("imported", import_model(opened.model, shapes, max_tokens))
    _require_data(calibration, scales, options, module)
    _check_smooth(smooth, scales, module)
    with stages("fuse"):
        fused = stages.dump("fused", options.fuse(module))
        check_fused(fused)
        specs, length_input, tokens = input_specs(fused)
        inputs = input_params(module)
        batch = _samples(calibration, inputs, specs, length_input, tokens)
        names = read_labels(labels if labels is not None else opened.labels, fused)
        options.weight_types(fused)  # a layer that there is not is reported before anything is calibrated
        text = attach_tokenizer(
            tokenizer if tokenizer is not None else opened.tokenizer,
            specs,
            tokens,
            has_length=length_input is not None or step is not None,
        )
        choice = choose_features(features, specs, has_length=length_input is not None)
        checked = None if verify is None else _batch(verify, specs, length_input, tokens, minimum=1)
    with stages("calibrate"):
        found = calibrate(
            module,
            fused,
            specs,
            tokens,
            batch,
            scales,
            by_scales=calibration is None,
            periods=periods(choice),
        )
    if smooth:
        fused, found = _smoothed(fused, found, batch, options, stages)
    with stages("quantize"):
        quantized = options.quantize(fused, found.statistics)
        stages.dump("quantized", quantized.module)
        stepped, deployed = options.in_steps(quantized)
    program, rule = build_tuned(deployed, board, prefix, microkernels, stages, tuned, options.storage)
    check_flash(program, board)
    front_end = _front_end(choice, program, quantized, microkernels)
    with stages("check"):
        source = check_source(
            opened.model, batch, length_input, tokens, [trace.outputs for trace in found.traces]
        )
        references, quality = _references(quantized, specs, batch, found.traces)
        quality |= {
            "source": source,
            "data": _data(calibration),
            "scales": quantized.scales,
            "verification": None,
        }
        if checked is not None:
            how = _setup(fused, quantized, batch, range_method, calibration)
            quality["verification"] = verification.verify(
                quantized, found.float_model, specs, checked, names, how
            )
    with stages("write"):
        info = _info(
            prefix,
            board,
            microkernels,
            deployed,
            specs,
            names,
            references,
            opened.title,
            text,
            front_end,
            stepped,
        )
        files = c_sources(program, info) | _modules(quantized, stepped)
        data = metadata(program, info, board, specs, length_input, deployed, quality, opened.digest(), rule)
        _attach([part for part in (text, front_end) if part is not None], prefix, files, data)
        _write(directory, files | build_files(data), references, data)
    return Artifact.load(directory)


def _modules(quantized: QuantizedModel, stepped: SteppedModel | None) -> dict[str, str]:
    """The integer modules from which a reference is computed, by file."""
    modules = {INTEGER_MODULE: quantized.module} | ({STEP_MODULE: stepped.module} if stepped else {})
    return {file: tvm.ir.save_json(module) for file, module in modules.items()}


@dataclasses.dataclass(frozen=True)
class _References:
    """Integer inputs, lengths and outputs of the first calibration samples."""

    inputs: list[dict[str, Array]]
    lengths: list[int]
    outputs: dict[str, list[Array]]


def _references(
    quantized: QuantizedModel, specs: list[InputSpec], batch: Batch, traces: list[Trace]
) -> tuple[_References, dict[str, Any]]:
    """Run the NumPy reference over calibration samples: reference vectors and figures of quality."""
    model, quality = IntegerModel(quantized.module), Quality(quantized.outputs)
    found = _References([], [], {name: [] for name in quantized.outputs})
    count = min(QUALITY_SAMPLES, len(batch))
    for index in np.linspace(0, len(batch) - 1, count).astype(int):
        inputs = integer_inputs(quantized, specs, {k: array[index] for k, array in batch.arrays.items()})
        n = int(batch.n_tokens[index])
        results = model.run(inputs, n)
        quality.add(traces[index], results, quantized.tensors)
        if len(found.inputs) < REFERENCE_SAMPLES:
            found.inputs.append(inputs)
            found.lengths.append(n)
            for name, values in found.outputs.items():
                values.append(without_absent_rows(results[name], n, quantized.max_tokens))
    return found, quality.report()


def _smoothed(
    fused: tvm.IRModule, found: Calibration, batch: Batch, options: ModelOptions, stages: Stages
) -> tuple[tvm.IRModule, Calibration]:
    with stages("smooth"):
        result, smoother = smoothed(fused, found, batch, options)
        return stages.dump("smoothed", result), smoother


def _check_smooth(smooth: bool, scales: ScaleSource | None, imported: tvm.IRModule) -> None:
    if smooth and (scales is not None or is_given(imported)):
        raise UserError(
            "--smooth changes the tensors that scales were given for.",
            "Leave it out for a model that comes with scales, or leave out --scales.",
        )


def _require_data(
    calibration: Data | None, scales: ScaleSource | None, options: ModelOptions, imported: tvm.IRModule
) -> None:
    if calibration is None and options.by_data:
        raise UserError(
            f"{' and '.join(options.by_data)}: weights are rounded by calibration data, and there are none.",
            "Give representative inputs with --calibration DATA.npz, or leave it out.",
        )
    if calibration is None and scales is None and not is_given(imported):
        raise UserError(
            "A float model needs calibration data to become an integer model.",
            "Give representative inputs with --calibration DATA.npz (keys: the model's input names).",
        )


def _samples(
    calibration: Data | None,
    inputs: dict[str, QuantParams],
    specs: list[InputSpec],
    length_input: str | None,
    tokens: int,
) -> Batch:
    """Calibration data; random inputs for a model that needs none, to have reference vectors and figures."""
    if calibration is not None:
        return _batch(calibration, specs, length_input, tokens)
    return random_batch(specs, inputs, tokens, REFERENCE_SAMPLES, lengths=length_input is not None)


def _setup(
    fused: tvm.IRModule, quantized: QuantizedModel, batch: Batch, range_method: str, calibration: Data | None
) -> verification.Setup:
    samples = len(batch) if calibration is not None else verification.ENOUGH_SAMPLES
    return verification.setup(fused, quantized.int16, range_method, samples)


def _data(calibration: Data | None) -> str:
    """What `quality` was measured on."""
    return "random" if calibration is None else "calibration"


def _batch(
    data: Path | str | Mapping[str, Array],
    specs: list[InputSpec],
    length_input: str | None,
    tokens: int,
    minimum: int = CALIBRATION_MINIMUM,
) -> Batch:
    if isinstance(data, Mapping):
        return check_arrays(data, specs, length_input, tokens, minimum=minimum)
    return read_npz(Path(data), specs, length_input, tokens, minimum=minimum)


def _check_features(features: Path | str | None, step: int | None) -> None:
    if features is not None and step is not None:
        raise UserError(
            "--features: the front end fills a whole window, and a model that runs in steps takes its next rows.",
            "Leave --step out, to run window by window; or --features, and compute the rows yourself.",
        )


def _front_end(
    choice: FeatureChoice | None, program: Program, quantized: QuantizedModel, microkernels: str
) -> AttachedFeatures | None:
    if choice is None:
        return None
    tensor = next(tensor for tensor in program.inputs if tensor.name == choice.input)
    params = quantized.inputs[choice.input]
    return attach_features(choice, tensor.shape, params.scale, params.zero_point, microkernels)


def _attach(
    parts: list[AttachedTokenizer | AttachedFeatures],
    prefix: str,
    files: dict[str, str],
    data: dict[str, Any],
) -> None:
    """Add what turns raw input into the model's to its files and metadata."""
    for part in parts:
        files |= part.files(prefix)
        data |= part.metadata(prefix, data["sources"])


def _info(
    prefix: str,
    board: Target,
    microkernels: str,
    quantized: QuantizedModel,
    specs: list[InputSpec],
    labels: dict[str, tuple[str, ...]],
    references: _References,
    title: str,
    text: AttachedTokenizer | None,
    front_end: AttachedFeatures | None,
    stepped: SteppedModel | None,
) -> ModelInfo:
    example = {spec.name: references.inputs[0][spec.name] for spec in specs}
    n = references.lengths[0]
    return ModelInfo(
        name=prefix,
        version=__version__,
        target=board.name,
        description=f"from {title}",
        max_tokens=quantized.max_tokens,
        has_length=quantized.has_length,
        input_params=quantized.inputs,
        limits={spec.name: spec.limit for spec in specs},
        paddings={spec.name: spec.padding for spec in specs},
        output_params={name: quantized.tensors[name] for name in quantized.outputs},
        labels=labels,
        example={key: value[:n] for key, value in example.items()},
        family=microkernels,
        text_input=None if text is None else text.input,
        features=None if front_end is None else front_end.use(),
        step=stepped,
    )


def _write(directory: Path, files: dict[str, str], references: _References, data: dict[str, Any]) -> None:
    with replaced_directory(directory) as temporary:
        write_files(temporary, files)
        stacked = {key: np.stack([row[key] for row in references.inputs]) for key in references.inputs[0]}
        save_npz(
            temporary / "reference" / "inputs.npz", {**stacked, "n_tokens": np.asarray(references.lengths)}
        )
        outputs = {name: np.stack(values) for name, values in references.outputs.items()}
        save_npz(temporary / "reference" / "outputs.npz", outputs)
        hashes = {
            path.relative_to(temporary).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        (temporary / METADATA_FILE).write_text(to_json({**data, "files": hashes}), encoding="utf-8")


def save_npz(path: Path, arrays: dict[str, Array]) -> None:
    """Write an .npz whose bytes depend on the arrays alone; unlike np.savez it takes any name, `file` too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)
