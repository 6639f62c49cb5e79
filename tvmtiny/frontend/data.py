"""Inputs of a model in .npz files: calibration data and samples, checked before anything runs on them.

Keys are the model's input names, batches along the first axis. The lengths are either the model's own mask
input (1 for the tokens that are there, 0 after them) or `n_tokens`; without either every token is present.
`labels`, the true classes, may lie in the same file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tvmtiny.errors import UserError
from tvmtiny.frontend.names import listed, suggestion

if TYPE_CHECKING:
    import tvm

    from tvmtiny.artifact import Artifact, TensorInfo
    from tvmtiny.runner import Sample

Array = npt.NDArray[Any]

LENGTH_KEY = "n_tokens"
LABELS_KEY = "labels"


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One input of the model.

    Attributes:
        name: as in the model.
        kind: "tokens" (ids) or "features" (real numbers).
        shape: without the batch axis.
        limit: number of admissible token ids; 0 for features.
        dtype: NumPy name of the element type that the imported model takes.
        padding: token ids that may only stand behind the present tokens.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    limit: int = 0
    dtype: str = "float32"
    padding: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Batch:
    """Checked samples: `arrays` name -> (N, *shape), `n_tokens` int64 (N,), `labels` (N,) or None."""

    arrays: dict[str, Array]
    n_tokens: Array
    labels: Array | None = None

    def __len__(self) -> int:
        return len(self.n_tokens)


def input_specs(module: tvm.IRModule) -> tuple[list[InputSpec], str | None, int]:
    """What a fused module (after `fusion_passes()`) takes.

    Returns:
        its data inputs; the name of the mask input that became `n_tokens`, or None; S, the most tokens.
    """
    from tvmtiny.passes.graph import Graph, shape_of
    from tvmtiny.passes.operators import token_rows
    from tvmtiny.passes.recognize_length import LENGTH_INPUT_ATTRIBUTE
    from tvmtiny.passes.recognize_positions import PADDING_ATTRIBUTE

    graph = Graph(module["main"])
    attributes = dict(module["main"].attrs or {})
    length_input = attributes.get(LENGTH_INPUT_ATTRIBUTE)
    limits, padding = _table_rows(graph), attributes.get(PADDING_ATTRIBUTE, {})
    specs = []
    for param in graph.params:
        if length_input is not None and param.name == LENGTH_KEY:
            continue
        dtype = str(param.ty.dtype)
        found = "features" if dtype.startswith("float") else "tokens"
        left_out = tuple(int(token) for token in padding.get(param.name, ()))
        limit = limits.get(param.name, 0)
        specs.append(InputSpec(param.name, found, shape_of(param)[1:], limit, dtype, left_out))
    return specs, None if length_input is None else str(length_input), token_rows(graph)


def _table_rows(graph: Any) -> dict[str, int]:
    """Rows of the embedding table that each input of ids selects from."""
    from tvmtiny.passes.graph import shape_of
    from tvmtiny.passes.operators import id_tables
    from tvmtiny.passes.views import trace

    rows: dict[str, int] = {}
    for _, value in graph:
        for ids, table in id_tables(value):
            name = trace(graph, ids).root.name
            rows[name] = min(rows.get(name, 1 << 62), shape_of(table)[0])
    return rows


def read_npz(
    path: Path | str,
    specs: Sequence[InputSpec],
    length_input: str | None,
    max_tokens: int,
    *,
    minimum: int = 1,
) -> Batch:
    """Read and check samples.

    Args:
        path: the .npz file.
        specs: the model's data inputs.
        length_input: name of the model's mask input; None for a model without a length.
        max_tokens: S.
        minimum: the fewest samples that will do.

    Raises:
        UserError: anything that is not as the model needs it, with the sample and what to do.
    """
    path = Path(path)
    return check_arrays(load_npz(path), specs, length_input, max_tokens, minimum=minimum, source=str(path))


def check_arrays(
    contents: Mapping[str, Array],
    specs: Sequence[InputSpec],
    length_input: str | None,
    max_tokens: int,
    *,
    minimum: int = 1,
    source: str = "the data",
) -> Batch:
    """As `read_npz`, for arrays by key; `source` is how messages call them."""
    contents = {name: np.asarray(values) for name, values in contents.items()}
    _check_keys(source, contents, specs, length_input)
    arrays = {spec.name: _check_array(source, contents[spec.name], spec) for spec in specs}
    counts = {name: len(array) for name, array in arrays.items()}
    counts |= {name: len(contents[name]) for name in contents if contents[name].ndim and name not in counts}
    _check_counts(source, counts, minimum)
    given = LENGTH_KEY in contents or length_input is None or length_input in contents
    padded = [spec for spec in specs if spec.padding]
    if padded and not given:
        lengths = _lengths_of_ids(arrays[padded[0].name], padded[0])
    else:
        lengths = _lengths(source, contents, length_input, max_tokens, next(iter(counts.values())))
    for spec in padded:
        _check_padding(source, arrays[spec.name], spec, lengths)
        absent = np.arange(spec.shape[-1]) >= lengths[:, None]
        arrays[spec.name] = np.where(absent, spec.padding[0], arrays[spec.name])
    return Batch(arrays, lengths, contents.get(LABELS_KEY))


def load_npz(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file. Raises UserError where it is none, or is damaged."""
    if not path.is_file():
        raise UserError(f"There is no file {path}.", "Give the path of an .npz file.")
    remedy = "Write it with numpy.savez(path, input_name=array, ...)."
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UserError(f"{path} is one array, not an .npz file.", remedy)
        with archive:
            return {name: archive[name] for name in archive.files}
    except UserError:
        raise
    # zipfile, zlib and NumPy's header parser each raise their own for a damaged file, with no common base.
    except Exception as error:
        raise UserError(
            f"{path} is not an .npz file of plain arrays, or is damaged: {error}", remedy
        ) from error


def _check_keys(
    source: str, contents: Mapping[str, Array], specs: Sequence[InputSpec], length_input: str | None
) -> None:
    needed = [spec.name for spec in specs]
    optional = [LENGTH_KEY, LABELS_KEY] + ([length_input] if length_input else [])
    missing = [name for name in needed if name not in contents]
    unknown = [name for name in contents if name not in (*needed, *optional)]
    expected = f"The model's inputs are {listed(needed + ([length_input] if length_input else []))}."
    if missing:
        hint = f"'{unknown[0]}' is not one of them: rename it? " if unknown else ""
        raise UserError(
            f"{source} lacks {listed(missing)}; it has {listed(contents) or 'nothing'}.", hint + expected
        )
    if unknown:
        near = suggestion(unknown[0], [*needed, *optional])
        raise UserError(
            f"{source} has {listed(unknown)}, which the model does not take.", f"{near} {expected}"
        )
    if length_input in contents and LENGTH_KEY in contents:
        raise UserError(
            f"{source} gives the lengths twice: as '{length_input}' and as '{LENGTH_KEY}'.",
            "Leave one of them out.",
        )


def _check_array(source: str, values: Array, spec: InputSpec) -> Array:
    kinds, wanted = ("iu", "integers") if spec.kind == "tokens" else ("fiu", "real numbers")
    if values.dtype.kind not in kinds:
        raise UserError(
            f"'{spec.name}' in {source} has elements of type {values.dtype}; it must be {wanted}."
        )
    if values.shape[1:] != spec.shape or values.ndim != len(spec.shape) + 1:
        found, need = "x".join(map(str, values.shape)), "x".join(map(str, ("N", *spec.shape)))
        hint = "Samples lie along the first axis"
        if values.shape == spec.shape:
            hint += ": add one, as in array[None]"
        raise UserError(f"'{spec.name}' in {source} has the shape {found}; {need} is needed.", f"{hint}.")
    return (
        _check_ids(source, values, spec) if spec.kind == "tokens" else _check_features(source, values, spec)
    )


def _check_ids(source: str, values: Array, spec: InputSpec) -> Array:
    outside = (values < 0) | (values >= spec.limit) if spec.limit else values < 0
    if np.any(outside):
        at = tuple(int(i) for i in np.argwhere(outside)[0])
        raise UserError(
            f"'{spec.name}' in {source}: sample {at[0]} has the token id {values[at]}; "
            f"the model knows 0 to {spec.limit - 1}.",
            "Use the tokenizer that the model was trained with.",
        )
    return values.astype(np.int64)


def _check_padding(source: str, values: Array, spec: InputSpec, lengths: Array) -> None:
    present = np.arange(values.shape[1]) < lengths[:, None]
    wrong = np.argwhere(np.isin(values, spec.padding) & present)
    if len(wrong):
        sample, place = (int(i) for i in wrong[0])
        raise UserError(
            f"'{spec.name}' in {source}: sample {sample} has the id of padding, {values[sample, place]}, among its "
            f"{lengths[sample]} present tokens, and the model leaves it out.",
            "Put padding behind the tokens, and say how many these are: by the mask input or n_tokens.",
        )


def _check_features(source: str, values: Array, spec: InputSpec) -> Array:
    with np.errstate(over="ignore"):
        real = values.astype(np.float32)
    if not np.all(np.isfinite(real)):
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(real))[0])
        raise UserError(
            f"'{spec.name}' in {source}: sample {at[0]} has the value {values[at]} at {list(at[1:])}.",
            "Remove samples with missing (NaN) or infinite values.",
        )
    return real


def _check_counts(source: str, counts: Mapping[str, int], minimum: int) -> None:
    if len(set(counts.values())) > 1:
        found = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise UserError(
            f"The arrays of {source} have different numbers of samples: {found}.",
            "Give each one row a sample.",
        )
    count = next(iter(counts.values()))
    if count < minimum:
        raise UserError(
            f"{source} has {count} sample{'s' * (count != 1)}; at least {minimum} are needed.",
            "Add typical inputs: what they do not show, the ranges of the integer model cannot cover.",
        )


def _lengths(
    source: str, contents: Mapping[str, Array], length_input: str | None, max_tokens: int, count: int
) -> Array:
    if length_input is not None and length_input in contents:
        return _lengths_of_mask(source, contents[length_input], length_input, max_tokens)
    if LENGTH_KEY not in contents:
        return np.full(count, max_tokens, np.int64)
    lengths = contents[LENGTH_KEY]
    if lengths.dtype.kind not in "iu" or lengths.shape != (count,):
        raise UserError(
            f"'{LENGTH_KEY}' in {source} is {lengths.dtype} of shape {lengths.shape}.",
            "One integer a sample is needed.",
        )
    lowest = 1 if length_input is not None else max_tokens
    wrong = np.flatnonzero((lengths < lowest) | (lengths > max_tokens))
    if len(wrong):
        allowed = (
            f"1 to {max_tokens}" if length_input is not None else f"{max_tokens}, as it has no mask input"
        )
        raise UserError(
            f"'{LENGTH_KEY}' in {source}: sample {wrong[0]} has {lengths[wrong[0]]}, not {allowed}."
        )
    return lengths.astype(np.int64)


def _lengths_of_ids(ids: Array, spec: InputSpec) -> Array:
    """Where neither a mask nor lengths are given: tokens up to the last that is not padding."""
    present = ~np.isin(ids, spec.padding)
    return np.maximum(1, ids.shape[1] - present[:, ::-1].argmax(axis=1)).astype(np.int64)


def _lengths_of_mask(source: str, mask: Array, name: str, max_tokens: int) -> Array:
    if mask.ndim != 2 or mask.shape[1] != max_tokens:
        found = "x".join(map(str, mask.shape))
        raise UserError(f"The mask '{name}' in {source} has the shape {found}; Nx{max_tokens} is needed.")
    if mask.dtype.kind not in "biuf" or np.any((mask != 0) & (mask != 1)):
        raise UserError(f"The mask '{name}' in {source} has values other than 0 and 1.")
    present = mask != 0
    lengths = present.sum(axis=1).astype(np.int64)
    empty = np.flatnonzero(lengths == 0)
    if len(empty):
        raise UserError(
            f"The mask '{name}' in {source} marks no token of sample {empty[0]}.", "Remove empty samples."
        )
    holes = np.flatnonzero(np.any(present != (np.arange(max_tokens) < lengths[:, None]), axis=1))
    if len(holes):
        raise UserError(
            f"The mask '{name}' in {source} has holes: in sample {holes[0]} a 0 comes before a 1.",
            "The first n tokens must be marked (1..10..0): put padding after the text, nowhere else.",
        )
    return lengths


def load_samples(artifact: Artifact, path: Path | str) -> list[Sample]:
    """Samples for a compiled model, in the element types and shapes of its arena.

    Of a model that runs in steps a sample is a whole sequence (`tvmtiny.runner.steps`). The model's own reference
    inputs are integers already.

    Raises:
        UserError: as `read_npz`.
    """
    if Path(path).resolve() == artifact.reference_inputs.resolve():
        return reference_samples(artifact)
    return samples_of(artifact, load_npz(Path(path)), source=str(path))


def reference_samples(artifact: Artifact) -> list[Sample]:
    """The inputs that lie beside the compiled model.

    Raises:
        UserError: they are not there.
    """
    from tvmtiny.runner import Sample

    contents = load_npz(artifact.reference_inputs)
    lengths = contents.pop(LENGTH_KEY)
    return [
        Sample({name: values[i] for name, values in contents.items()}, n_tokens=int(n))
        for i, n in enumerate(lengths)
    ]


def samples_of(
    artifact: Artifact, contents: Mapping[str, Array], *, source: str = "the data"
) -> list[Sample]:
    """As `load_samples`, for arrays by key; `source` is how messages call them."""
    from tvmtiny.runner import Sample

    shapes = {row["name"]: tuple(row.get("model_shape", row["shape"])) for row in artifact.metadata["inputs"]}
    specs = [
        InputSpec(info.name, info.kind, shapes[info.name], info.limit, padding=info.padding)
        for info in artifact.inputs
    ]
    step = artifact.metadata.get("step")
    tokens = artifact.max_tokens if step is None else int(step["sequence_tokens"])
    batch = check_arrays(contents, specs, artifact.metadata.get("length_input"), tokens, source=source)
    arrays = {info.name: _in_arena(info, batch.arrays[info.name]) for info in artifact.inputs}
    return [
        Sample({name: values[i] for name, values in arrays.items()}, n_tokens=int(batch.n_tokens[i]))
        for i in range(len(batch))
    ]


def _in_arena(info: TensorInfo, values: Array) -> Array:
    """Samples (N, *model shape) as (N, rows, *arena shape of a row): the same elements, row by row."""
    shaped = values.reshape(len(values), -1, *info.shape[1:])
    if info.kind == "tokens":
        return shaped.astype(info.dtype)
    from tvmtiny.quant.qparams import quantize_features

    scale, zero_point = np.asarray(info.scale), np.asarray(info.zero_point)
    return np.asarray(quantize_features(shaped, scale, zero_point)).astype(info.dtype)
