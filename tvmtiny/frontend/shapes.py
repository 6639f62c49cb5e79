"""Every axis of every input gets a size: from the model, `--shape` or `--max-tokens`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tvmtiny.errors import UserError
from tvmtiny.frontend.names import suggestion

if TYPE_CHECKING:
    import tvm


@dataclasses.dataclass(frozen=True)
class DeclaredInput:
    """An input as the model declares it.

    Attributes:
        name: the input's name.
        axes: the size of each axis, or the name of a dynamic one ("" if unnamed); None for unknown rank.
    """

    name: str
    axes: tuple[int | str, ...] | None


def resolve_shapes(
    inputs: Sequence[DeclaredInput], shapes: Mapping[str, tuple[int, ...]] | None, max_tokens: int | None
) -> dict[str, tuple[int, ...]]:
    """The static shape of each input; a dynamic first axis is the batch and becomes 1.

    Args:
        inputs: what the model declares.
        shapes: shapes that the user fixed (`--shape INPUT=1x32`).
        max_tokens: put in for a dynamic axis 1 of every input that has one.

    Raises:
        UserError: an axis without a size, a batch other than 1, or an option that contradicts the model.
    """
    given = dict(shapes or {})
    names = [declared.name for declared in inputs]
    for name in given:
        if name not in names:
            raise UserError(f"--shape names an input '{name}' that the model lacks.", suggestion(name, names))
    resolved = {
        declared.name: _resolve(declared, given.get(declared.name), max_tokens) for declared in inputs
    }
    if max_tokens is not None:
        _require_used(inputs, resolved, max_tokens)
    for name, shape in resolved.items():
        _require_batch_of_one(name, shape)
    return resolved


def _resolve(
    declared: DeclaredInput, given: tuple[int, ...] | None, max_tokens: int | None
) -> tuple[int, ...]:
    if given is not None:
        return _check_given(declared, given)
    if declared.axes is None:
        raise UserError(
            f"The model does not say how many axes input '{declared.name}' has.",
            f"Give its shape, as in --shape {declared.name}=1x32.",
        )
    shape = []
    for axis, size in enumerate(declared.axes):
        if isinstance(size, int) and size > 0:
            shape.append(size)
        elif axis == 0:
            shape.append(1)
        elif axis == 1 and max_tokens is not None:
            shape.append(max_tokens)
        else:
            raise _dynamic_axis(declared, axis)
    return tuple(shape)


def _dynamic_axis(declared: DeclaredInput, axis: int) -> UserError:
    assert declared.axes is not None
    name = f" ('{declared.axes[axis]}')" if declared.axes[axis] else ""
    sizes = [
        str(size) if isinstance(size, int) and size > 0 else "1" if i == 0 else "32"
        for i, size in enumerate(declared.axes)
    ]
    option = f"--shape {declared.name}={'x'.join(sizes)}"
    return UserError(
        f"Axis {axis}{name} of input '{declared.name}' is dynamic; a static arena needs its largest size.",
        f"Give --max-tokens 32, or {option}." if axis == 1 else f"Give it, as in {option}.",
    )


def _check_given(declared: DeclaredInput, given: tuple[int, ...]) -> tuple[int, ...]:
    text = "x".join(map(str, given))
    if declared.axes is None:
        return given
    if len(given) != len(declared.axes):
        raise UserError(
            f"--shape {declared.name}={text} has {len(given)} axes; the model has {len(declared.axes)}.",
            "The batch (1) is the first of them.",
        )
    for axis, (wanted, size) in enumerate(zip(given, declared.axes, strict=True)):
        if isinstance(size, int) and size > 0 and size != wanted:
            raise UserError(
                f"--shape {declared.name}={text}: the model fixes axis {axis} at {size}.",
                "Only a dynamic axis takes a size; export the model with that size or with a dynamic axis.",
            )
    return given


def _require_used(
    inputs: Sequence[DeclaredInput], resolved: Mapping[str, tuple[int, ...]], max_tokens: int
) -> None:
    """--max-tokens must have had an effect, or agree with the model."""
    sizes = {name: shape[1] for name, shape in resolved.items() if len(shape) > 1}
    if max_tokens not in sizes.values():
        found = ", ".join(f"'{name}' has {size}" for name, size in sizes.items()) or "there is no such axis"
        raise UserError(
            f"--max-tokens {max_tokens} fits no input: axis 1 is fixed in the model ({found}).",
            "Export the model with a dynamic axis 1, or with that size.",
        )


def _require_batch_of_one(name: str, shape: tuple[int, ...]) -> None:
    text = "x".join(map(str, shape)) or "a scalar"
    if len(shape) < 2:
        raise UserError(
            f"Input '{name}' has the shape {text}; a batch axis of size 1 and one more are needed.",
            "Export the model with inputs such as 1x32 (token ids) or 1x128x6 (features).",
        )
    if shape[0] != 1:
        raise UserError(
            f"Input '{name}' has the shape {text}: the batch, its first axis, is {shape[0]} and must be 1.",
            "Export the model with a batch of 1 or with a dynamic first axis.",
        )


def require_static(module: tvm.IRModule) -> None:
    """Every value of `main` must have a known shape and elements; raises UserError with the first that has not."""
    from tvm import relax

    from tvmtiny.passes.graph import Graph, shape_of

    for var, value in Graph(module["main"]):
        if not _is_static(var.ty):
            raise _depends_on_data(var, value)
        if isinstance(var.ty, relax.TensorType) and 0 in shape_of(var):
            raise UserError(
                f"The result of node '{var.name}' has no elements: an axis of its shape is 0.",
                "Check the constants of the model that give shapes, axes and bounds of slices.",
            )


def _depends_on_data(var: Any, value: Any) -> UserError:
    from tvm import relax

    from tvmtiny.passes.graph import op_name
    from tvmtiny.passes.resemblance import of_family, unsupported

    static = "Static memory needs shapes that are known when compiling."
    row = unsupported(
        var.name, op_name(value) if isinstance(value, relax.Call) else "", "Replace the node in the model."
    )
    return UserError(
        f"The shape of node '{var.name}' depends on the data of a run{of_family(row)}.",
        f"{static} {row.remedy}",
    )


def _is_static(ty: Any) -> bool:
    from tvm import relax

    if isinstance(ty, relax.TupleType):
        return all(_is_static(field) for field in ty.fields)
    if not isinstance(ty, relax.TensorType):
        return True
    return ty.shape is not None and all(hasattr(extent, "value") for extent in ty.shape)
