"""The schedules among which a tuner chooses: for each kernel on each core, a few design spaces.

A point of a space is a `Blocking`. As a TVM schedule it is a trace: one sampled decision for each choice, each written
to the root block as an annotation, so that it replays on the kernel of any parameters (`blocking_of` reads it back).
What the decisions do is done when the kernel is lowered: rows, the order of loops and layouts decide its loops and
buffers, the variant its micro-kernels.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx

from tvmtiny.kernels import Blocking, Kernel, Operands
from tvmtiny.kernels.base import PAIRS, PLAIN, WIDE_PAIRS
from tvmtiny.kernels.weights import any_int4
from tvmtiny.passes.lower import LENGTH_SYMBOL
from tvmtiny.passes.quick_script import quick_script
from tvmtiny.resources import data_dir
from tvmtiny.schedule.rules import PAIRED_ROWS, WIDENED_ROWS, blocking, family
from tvmtiny.schedule.variants import KNOBS, Variant, knobs_of
from tvmtiny.target import Target

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Tokens at a time: row block of attention, token tile of feed-forward and of a dense layer with an epilogue."""

LEAST_SIZE = 2
"""A space with fewer points leaves nothing to choose."""

_PREFIX = "tvmtiny.schedule."


@dataclasses.dataclass(frozen=True)
class Design:
    """One way to multiply: the layout of columns, the family of micro-kernels, and what is open of both.

    Attributes:
        columns: layout of weights (`tvmtiny.kernels.columns`); keys and values follow from it.
        family: of the micro-kernels.
        choices: what is open, by name: "rows", "tokens_outer" where the order of loops is open, and the knobs.
    """

    columns: str
    family: str
    choices: dict[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        """Number of points."""
        return math.prod(len(values) for values in self.choices.values())

    def points(self) -> Iterator[Blocking]:
        """Every point, in order."""
        for values in itertools.product(*self.choices.values()):
            yield _blocking(self.columns, self.family, dict(zip(self.choices, values, strict=True)))

    def sample(self, schedule: s_tir.Schedule, chosen: dict[str, int] | None = None) -> s_tir.Schedule:
        """Append the decisions to a schedule's trace: those that are given, else random ones."""
        root = schedule.get_sblock("root")
        schedule.annotate(root, f"{_PREFIX}columns", self.columns)
        schedule.annotate(root, f"{_PREFIX}family", self.family)
        for name, values in self.choices.items():
            decision = None if chosen is None else values.index(chosen[name])
            value = schedule.sample_categorical(list(values), [1 / len(values)] * len(values), decision)
            schedule.annotate(root, f"{_PREFIX}{name}", value)
        return schedule


def designs(kernel: Kernel, operands: Operands, target: Target, *, wide_weights: bool) -> list[Design]:
    """The design spaces of a kernel on the core of a target, that of the rules first.

    Args:
        wide_weights: whether flash may hold int8 weights as int16, where that saves instructions.
    """
    own = family(target)
    default = blocking(own)(kernel, operands)
    rows = _rows(kernel, operands, default)
    pairs = bool(kernel.columns) and kernel.pairable(operands) and not any_int4(operands)
    multiplies = kernel.multiplies and not any_int4(operands)
    layouts = [(default.weights, own)]
    if multiplies and target.dsp and not target.mve:
        layouts += [(PLAIN, own), *([(PAIRS, "dsp")] if pairs else [])]
        if pairs and wide_weights and own in PAIRED_ROWS:
            layouts.append((WIDE_PAIRS, "wide_weights"))
    found = []
    for columns, name in dict.fromkeys(layouts):
        knobs = knobs_of(name, columns) if multiplies else {}
        orders = {"tokens_outer": (0, 1)} if has_orders(kernel, operands, columns) else {}
        choices = {"rows": rows, **orders, **{knob: what.choices for knob, what in knobs.items()}}
        found.append(Design(columns, name, choices))
    return found


def size(spaces: list[Design]) -> int:
    """Number of points of several design spaces."""
    return sum(design.size for design in spaces)


def default_blocking(kernel: Kernel, operands: Operands, target: Target) -> Blocking:
    """What the rules choose, with its variant named."""
    own = family(target)
    return dataclasses.replace(blocking(own)(kernel, operands), variant=own)


def blocking_of(module: tvm.IRModule) -> Blocking:
    """The point that a schedule's annotations say."""
    body = module["main"].body
    annotations = {str(key): value for key, value in body.block.annotations.items()}
    said = {key.removeprefix(_PREFIX): value for key, value in annotations.items() if key.startswith(_PREFIX)}
    columns, name = str(said.pop("columns")), str(said.pop("family"))
    return _blocking(columns, name, {key: int(value) for key, value in said.items()})


def replayed(trace: Any, module: tvm.IRModule | None = None) -> Blocking:
    """The point of a trace (as JSON). Raises ValueError when it is none.

    Args:
        module: a kernel's TIR (`workload`). Decisions are all about the root block, which any TIR has: without a module
            one that does nothing serves.
    """
    try:
        _check_trace(trace)
        schedule = s_tir.Schedule(module or _nothing())
        s_tir.schedule.Trace.apply_json_to_schedule(trace, schedule)
        point = blocking_of(schedule.mod)
    except Exception as error:  # TVM raises many kinds
        raise ValueError(f"the trace does not apply: {error}") from error
    _check_point(point)
    return point


def chooses_first(trace: Any, name: str) -> bool:
    """Whether a trace (as JSON) has the rules' value of a choice, the first that there is."""
    instructions, decisions = trace
    (annotated,) = (
        args[1] for kind, args, keys, _ in instructions if [kind, keys] == ["Annotate", [_PREFIX + name]]
    )
    (deciding,) = (index for index, (*_, results) in enumerate(instructions) if annotated in results)
    return bool(dict(decisions)[deciding] == 0)


def _nothing() -> tvm.IRModule:
    root = s_tir.SBlock([], [], [], "root", tirx.Evaluate(0))
    function = tirx.PrimFunc([], s_tir.SBlockRealize([], True, root))
    return tvm.IRModule({"main": function.with_attr("global_symbol", "main")})


def _check_trace(trace: Any) -> None:
    """Raise unless decisions belong to instructions that decide: TVM would look for them outside of its memory."""
    instructions, decisions = trace
    deciding = {index for index, (kind, *_) in enumerate(instructions) if kind == "SampleCategorical"}
    if not {index for index, _ in decisions} <= deciding:
        raise ValueError("it decides what is no choice")


def _check_point(point: Blocking) -> None:
    """Raise ValueError unless every choice of a point exists."""
    variant = Variant.parse(point.variant)
    known = (data_dir("schedules") / "microkernels" / variant.family).is_dir() and all(
        value in KNOBS[name].choices for name, value in variant.settings
    )
    if point.rows < 1 or point.weights not in (PLAIN, PAIRS, WIDE_PAIRS) or not known:
        raise ValueError(f"there is no schedule {describe(point)}")


def workload(kernel: Kernel, operands: Operands) -> tvm.IRModule:
    """The kernel's TIR as the subject of schedules: without any choice made, for all tokens.

    MetaSchedule takes no function with a number among its parameters, and no choice depends on that of the tokens, nor
    on where in a sequence they lie.
    """
    with quick_script():
        function = kernel.prim_func(operands, Blocking())
    tokens = {LENGTH_SYMBOL: tokens_of(kernel, operands)}
    numbers = [param for param in function.params if not isinstance(param.ty, tirx.BufferType)]
    if numbers:
        function = function.specialize(
            {param: tirx.IntImm("int32", tokens.get(param.name, 0)) for param in numbers}
        )
    return tvm.IRModule({"main": function.with_attr("global_symbol", "main")})


def describe(point: Blocking) -> str:
    """A point in a line."""
    order = ["tokens outer"] if point.tokens_outer else []
    return ", ".join(
        [f"rows {point.rows}", point.weights, *order, *([point.variant] if point.variant else [])]
    )


def features(point: Blocking, tokens: int) -> dict[str, float]:
    """What a cost model sees of a point: its choices, and what its rows mean for so many tokens.

    `blocks` is how often weights are read, `waste` how many rows too many are multiplied, as micro-kernels take them in
    groups; both relative to the tokens.
    """
    variant = Variant.parse(point.variant)
    group = max(1, point.widened_rows)
    full, rest = divmod(tokens, point.rows)
    groups = full * -(-point.rows // group) + -(-rest // group)
    return {
        "rows": math.log2(point.rows),
        "blocks": (full + bool(rest)) / tokens,
        "waste": groups * group / tokens - 1,
        "wide": float(point.weights == WIDE_PAIRS),
        "plain": float(point.weights == PLAIN),
        "tokens_outer": float(point.tokens_outer),
        **{name: float(value) for name, value in variant.settings},
    }


def _blocking(columns: str, name: str, chosen: dict[str, int]) -> Blocking:
    loops = dict(chosen)
    rows, tokens_outer = loops.pop("rows"), bool(loops.pop("tokens_outer", 0))
    widened = WIDENED_ROWS.get(name, 0) if columns == PLAIN else PAIRED_ROWS.get(name, 4)
    return Blocking(rows, widened, columns, Variant.of(name, loops).name, tokens_outer)


def _rows(kernel: Kernel, operands: Operands, default: Blocking) -> tuple[int, ...]:
    """The rule's choice first, then every other that makes different loops."""
    first = tokens_of(kernel, operands)
    others = [rows for rows in ROWS if rows <= first and rows != default.rows]
    if not others or not _goes_by_rows(kernel, operands, default):
        return (default.rows,)
    return (default.rows, *others)


def tokens_of(kernel: Kernel, operands: Operands) -> int:
    """Rows of a kernel's first operand."""
    return operands.shape("x" if "x" in operands else kernel.arguments[0])[0]


def _goes_by_rows(kernel: Kernel, operands: Operands, default: Blocking) -> bool:
    return _differ(
        kernel, operands, *(dataclasses.replace(default, rows=rows, widened_rows=0) for rows in (1, 2))
    )


def has_orders(kernel: Kernel, operands: Operands, columns: str) -> bool:
    """Whether the order of a kernel's loops is open."""
    return _differ(
        kernel, operands, *(Blocking(weights=columns, tokens_outer=outer) for outer in (False, True))
    )


def _differ(kernel: Kernel, operands: Operands, *choices: Blocking) -> bool:
    """Whether two schedules make different loops."""
    with quick_script():
        one, two = (kernel.prim_func(operands, choice) for choice in choices)
    return not tvm_ffi.structural_equal(one, two)
