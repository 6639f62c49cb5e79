"""Random instances of every kernel: legal integer parameters, and contents at the ends of their ranges.

Legal is what `tvmtiny.quant.qparams` can produce: multipliers in [0, 2**31), accumulators that fit 32 bits after their
shift, sums that fit the epilogue's bits, no weight table that overflows. Within that, edges are preferred.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tvm
from tvm import relax, tirx

from tvmtiny.kernels import Blocking, Operands, emit_call, kernels
from tvmtiny.kernels.base import PAIRS, PLAIN, WIDE_PAIRS
from tvmtiny.kernels.columns import laid_out
from tvmtiny.kernels.epilogue import Epilogue
from tvmtiny.kernels.weights import GROUPS, any_int4
from tvmtiny.passes.lower import Lower
from tvmtiny.quant import int4, integer, qparams
from tvmtiny.quant.tensor_arithmetic import BINARY, EXPONENTIAL_ONE
from tvmtiny.storage.huffman import Code, histogram_of

INT32 = 2**31 - 1
Rng: TypeAlias = np.random.Generator
Arrays: TypeAlias = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Dims:
    """Extents: S tokens, E input, N output, F hidden columns; heads and their width; rows of a block."""

    S: int
    E: int
    N: int
    F: int
    heads: int
    width: int
    rows: int


@dataclasses.dataclass(frozen=True)
class Instance:
    """A kernel with shapes and attributes.

    Attributes:
        fill: draws contents for all operands.
        tokens: the largest n that it may run with.
        rows: rows of the result that a run with n tokens defines.
        block: rows of its blocking; an odd number comes with a workspace, and the layout of weights and the order of
            loops follow from it.
    """

    kernel: str
    attrs: dict[str, Any]
    fill: Callable[[Rng], Arrays]
    tokens: int
    rows: Callable[[int], int]
    block: int = 4

    def reference(self, arrays: Arrays, n: int) -> np.ndarray:
        """The NumPy meaning."""
        return np.asarray(kernels()[self.kernel].reference(Operands(arrays, None, self.attrs), n))

    def compiled(self) -> Callable[[Arrays, int, np.ndarray], np.ndarray]:
        """The TIR built for LLVM: f(arrays, n, contents of the output before) -> after."""
        builder = relax.BlockBuilder()
        example = self.fill(np.random.default_rng(0))
        kernel = kernels()[self.kernel]
        weights = (PLAIN, PAIRS, WIDE_PAIRS)[self.block % 3]
        operands = Operands(example, None, self.attrs)
        if not kernel.columns or not kernel.pairable(operands) or any_int4(operands):
            weights = PLAIN
        tokens_outer = self.block % 4 > 1
        blocking = Blocking(self.block, 6 if self.block % 2 else 0, weights, tokens_outer=tokens_outer)
        columns = () if weights == PLAIN else kernel.columns
        tensors = {k: relax.const(v) if k in columns else _parameter(k, v) for k, v in example.items()}
        n = tirx.Var("n", "int32")
        with builder.function("main", [*(t for t in tensors.values() if isinstance(t, tvm.ir.Var)), n]):
            with builder.dataflow():
                result = builder.emit_output(builder.emit(emit_call(self.kernel, tensors, n, **self.attrs)))
            builder.emit_func_output(result)
        module = Lower(lambda kernel, operands: blocking)(builder.get())
        (function,) = (f for f in module.functions.values() if isinstance(f, tirx.PrimFunc))
        names = [p.name for p in function.params]
        built = tvm.compile(tvm.IRModule({"f": function.with_attr("global_symbol", "f")}), target="llvm")["f"]

        def run(arrays: Arrays, n: int, before: np.ndarray) -> np.ndarray:
            laid = {k: laid_out(v, weights) if k in columns else v for k, v in arrays.items()}
            tensors: dict[str, Any] = {
                k: tvm.runtime.tensor(v) if v.ndim else int(v) for k, v in laid.items()
            }
            tensors |= {"n": n, "out": tvm.runtime.tensor(before)}
            built(*(tensors[name] for name in names))
            for name in kernel.state:
                if name in arrays:
                    arrays[name][:] = tensors[name].numpy()
            return np.asarray(tensors["out"].numpy())

        return run


def _parameter(name: str, value: np.ndarray) -> Any:
    """What a kernel takes as an operand: a tensor, or a number such as the position of a step."""
    if value.ndim == 0:
        return tirx.Var(name, "int32")
    return relax.Var(name, relax.TensorType(list(value.shape), str(value.dtype)))


# contents


def int8s(rng: Rng, *shape: int) -> np.ndarray:
    """Uniform, or all at the ends of the range, or one of its ends everywhere."""
    kind = rng.integers(0, 3)
    if kind == 0:
        return rng.integers(-128, 128, shape).astype(np.int8)
    ends = np.array([-128, -127, 0, 127]) if kind == 1 else rng.choice([-128, 127], 1)
    return rng.choice(ends, shape).astype(np.int8)


def int16s(rng: Rng, *shape: int) -> np.ndarray:
    """As int8s: an int16 residual stream."""
    kind = rng.integers(0, 3)
    if kind == 0:
        return rng.integers(-32768, 32768, shape).astype(np.int16)
    ends = np.array([-32768, -32767, 0, 32767]) if kind == 1 else rng.choice([-32768, 32767], 1)
    return rng.choice(ends, shape).astype(np.int16)


def integers(rng: Rng, limit: int, *shape: int, low: int | None = None) -> np.ndarray:
    """Values of every size in [low, limit], or only at the ends; low is -limit when None."""
    low = -limit if low is None else low
    if rng.integers(0, 2):
        return rng.choice(np.array([low, min(low + 1, limit), 0, max(limit - 1, low), limit]), shape)
    sign = rng.choice([-1, 1], shape)
    return np.clip(np.round(sign * (limit + 1.0) ** rng.uniform(0, 1, shape)), low, limit).astype(np.int64)


def multipliers(rng: Rng, count: int, limit: int = INT32) -> np.ndarray:
    return integers(rng, limit, count, low=0).astype(np.int32)


def zero_point(rng: Rng) -> int:
    return int(rng.choice([-128, 0, 127, rng.integers(-128, 128)]))


def shift_below(rng: Rng, bound: int) -> int:
    """A shift after which `bound` still fits 32 bits; the largest often."""
    most = (INT32 // max(1, bound)).bit_length() - 1
    return int(rng.choice([0, most, rng.integers(0, most + 1)]))


# parts


@dataclasses.dataclass(frozen=True)
class Layer:
    """A dense layer inside a kernel: `fill` draws its weights (int8, or packed int4), bias and multiplier.

    Every accumulator fits 32 bits after `shift`, some just so.
    """

    prefix: tuple[str, str, str]
    N: int
    K: int
    packed: bool
    shift: int
    limit: int = INT32

    @classmethod
    def draw(cls, rng: Rng, prefix: tuple[str, str, str], N: int, K: int, limit: int = INT32) -> Layer:
        packed = bool(rng.integers(0, 2))
        return cls(prefix, N, K, packed, shift_below(rng, _products(K, packed)), limit)

    def fill(self, rng: Rng) -> Arrays:
        weight, bias, multiplier = self.prefix
        bound = (INT32 >> self.shift) - _products(self.K, self.packed)
        arrays: Arrays = {weight: int8s(rng, self.N, self.K)}
        if self.packed:
            q = (
                rng.choice([-8, 7], (self.N, self.K))
                if rng.integers(0, 2)
                else int8s(rng, self.N, self.K) >> 4
            )
            scales = integers(rng, 255, self.N, int4.groups_of(self.K), low=1)
            arrays = {weight: int4.pack(q), GROUPS[weight]: scales.astype(np.uint8)}
        return {
            **arrays,
            bias: integers(rng, bound, self.N).astype(np.int32),
            multiplier: multipliers(rng, self.N, self.limit),
        }


def _products(depth: int, packed: bool) -> int:
    """The largest sum of `depth` products with an int8 value."""
    return depth * 128 * (8 * 255 if packed else 128)


def _epilogue(rng: Rng, cols: int, *, residual: bool | None, wide: bool = False) -> tuple[Epilogue, int]:
    """An epilogue, and the largest multiplier of the sum in front of it."""
    residual = bool(rng.integers(0, 2)) if residual is None else residual
    wide_residual = residual and bool(rng.integers(0, 2))
    most_shift = 15 if wide_residual else 16
    norm = bool(rng.integers(0, 2)) and not wide
    scaled = not norm and not wide and bool(rng.integers(0, 2))
    bits = qparams.norm_bits(cols) if norm else int(rng.integers(9, 32))
    epilogue = Epilogue(
        residual=residual,
        wide_residual=wide_residual,
        residual_zero_point=zero_point(rng) if residual and not wide_residual else 0,
        residual_shift=int(rng.choice([0, most_shift, rng.integers(0, most_shift + 1)])) if residual else 0,
        bits=bits,
        norm=norm,
        uncentred=norm and bool(rng.integers(0, 2)),
        scaled=scaled,
        root_extent=integer.root_extent(cols) if norm else 0,
        epsilon=int(rng.choice([1, 2, 10**6, 2**40, 2**61])),
        multiplier=int(multipliers(rng, 1)[0]),
        shift=int(rng.choice([0, 32 - bits])),
        zero_point=zero_point(rng),
        wide=wide,
    )
    # |acc * multiplier >> 32| stays below 2**(bits - 1); the residual's saturation does that by itself.
    return epilogue, INT32 if residual else 2**bits - 2


def _epilogue_arrays(rng: Rng, e: Epilogue, rows: int, cols: int) -> Arrays:
    arrays = {}
    if e.residual:
        arrays["residual"] = int16s(rng, rows, cols) if e.wide_residual else int8s(rng, rows, cols)
    if e.norm or e.scaled:
        arrays["gamma"] = integers(rng, 2**30 - 1, cols).astype(np.int32)
        arrays["beta"] = integers(rng, 2 ** int(rng.choice([15, 30])) - 1, cols).astype(np.int32)
    return arrays


# kernels


def dense(d: Dims, rng: Rng) -> Instance:
    M = int(rng.choice([1, d.S]))
    form = str(rng.choice(["plain", "table", "sum", "wide"]))
    attrs: dict[str, int] = {"epilogue": int(form in ("sum", "wide"))}
    e, limit = Epilogue(), INT32
    if attrs["epilogue"]:
        e, limit = _epilogue(rng, d.N, residual=None, wide=form == "wide")
        attrs |= e.attrs()
    else:
        attrs["zero_point"] = zero_point(rng)
    layer = Layer.draw(rng, ("weight", "bias", "multiplier"), d.N, d.E, limit)
    attrs["shift"] = layer.shift

    def fill(rng: Rng) -> Arrays:
        table = {"table": int8s(rng, 256)} if form == "table" else {}
        return {"x": int8s(rng, M, d.E), **layer.fill(rng), **table, **_epilogue_arrays(rng, e, M, d.N)}

    return Instance("dense", attrs, fill, d.S, lambda n: min(n, M), d.rows)


def _attention_parts(
    d: Dims, rng: Rng, columns: dict[str, int], heads: int, width: int, keys: int
) -> tuple[Any, Any]:
    """Attributes of attention to at most `keys` tokens, and what draws the operands that all its forms have but x."""
    e, limit = _epilogue(rng, d.N, residual=None, wide=bool(rng.integers(0, 2)))
    layers = [Layer.draw(rng, (f"w{p}", f"b{p}", f"m{p}"), N, d.E) for p, N in columns.items()]
    layers.append(Layer.draw(rng, ("wo", "bo", "mo"), d.N, heads * width, limit))
    attrs = {
        "heads": heads,
        **{f"{part}_shift": layer.shift for part, layer in zip([*columns, "o"], layers, strict=True)},
        "score_shift": shift_below(rng, 2 * 128 * 128 * max(d.E, width)),
        "value_shift": shift_below(rng, 255 * 128 * keys),
        **e.attrs(),
    }

    def fill(rng: Rng) -> Arrays:
        arrays: Arrays = {}
        for layer in layers:
            arrays |= layer.fill(rng)
        table = (
            rng.integers(0, 256, 256).astype(np.uint8) if rng.integers(0, 2) else qparams.exponential_table()
        )
        table[0] = 255
        arrays["exp_table"] = table
        arrays["score_multiplier"] = multipliers(rng, heads)
        arrays["ratio"] = integers(rng, 2**32 - 1, heads, low=0).astype(np.uint32)
        return arrays | _epilogue_arrays(rng, e, d.S, d.N)

    return attrs, fill


def _angles(rng: Rng, tokens: int, width: int) -> np.ndarray:
    """A table of cosines and sines, some of them at their ends."""
    return qparams.rotary_table(rng.choice([0.0, 1.0, np.pi / 4, np.pi, 30.0], (tokens, width // 2)))


def _grouped(d: Dims, rng: Rng) -> tuple[int, int, int, bool]:
    """Heads of Q, heads of K and V, their width, and whether Q and K are turned."""
    served, rotary = int(rng.integers(1, 4)), bool(rng.integers(0, 2))
    return d.heads * served, d.heads, d.width + (d.width % 2 if rotary else 0), rotary


def attention(d: Dims, rng: Rng) -> Instance:
    folded = bool(rng.integers(0, 3) == 0)
    heads, groups, width, rotary = (d.heads, d.heads, d.width, False) if folded else _grouped(d, rng)
    columns = (
        {"q": heads * d.E, "v": heads * width}
        if folded
        else {"q": heads * width, "k": groups * width, "v": groups * width}
    )
    attrs, parts = _attention_parts(d, rng, columns, heads, width, d.S)
    if groups != heads:
        attrs["kv_heads"] = groups
    if rng.integers(0, 2):
        attrs |= {name: int(rng.integers(0, d.S + 1)) for name in ("before", "after")}

    def fill(rng: Rng) -> Arrays:
        table = {"rotary": _angles(rng, d.S, width)} if rotary else {}
        return {"x": int8s(rng, d.S, d.E), **parts(rng), **table}

    return Instance("attention", attrs, fill, d.S, lambda n: n, d.rows)


def attention_step(d: Dims, rng: Rng) -> Instance:
    heads, groups, width, rotary = _grouped(d, rng)
    columns = {"q": heads * width, "k": groups * width, "v": groups * width}
    slots, most = int(rng.integers(1, 2 * d.S + 1)), 3 * d.S
    attrs, parts = _attention_parts(d, rng, columns, heads, width, slots)
    attrs |= {"kv_heads": groups, "before": slots - 1, "after": 0}

    def fill(rng: Rng) -> Arrays:
        table = {"rotary": _angles(rng, most + d.S, width)} if rotary else {}
        caches = {
            "k_cache": int8s(rng, groups * slots, width), "v_cache": int8s(rng, groups * width, slots)
        }  # fmt: skip
        start = np.asarray(rng.integers(0, most + 1), np.int32)
        return {"x": int8s(rng, d.S, d.E), **parts(rng), **table, **caches, "start": start}

    return Instance("attention_step", attrs, fill, d.S, lambda n: n, d.rows)


def glu(d: Dims, rng: Rng) -> Instance:
    e, limit = _epilogue(rng, d.N, residual=None, wide=bool(rng.integers(0, 2)))
    layers = [Layer.draw(rng, (f"w{p}", f"b{p}", f"m{p}"), d.F, d.E) for p in "gu"]
    layers.append(Layer.draw(rng, ("wd", "bd", "md"), d.N, d.F, limit))
    attrs = {
        **{f"{part}_shift": layer.shift for part, layer in zip("gud", layers, strict=True)},
        "g_zero": zero_point(rng), "u_zero": zero_point(rng), "hidden_zero": zero_point(rng),
        "multiplier": int(multipliers(rng, 1)[0]), "hidden_shift": shift_below(rng, 2**22), **e.attrs(),
    }  # fmt: skip

    def fill(rng: Rng) -> Arrays:
        arrays: Arrays = {"x": int8s(rng, d.S, d.E), "table": int16s(rng, 256)}
        for layer in layers:
            arrays |= layer.fill(rng)
        return arrays | _epilogue_arrays(rng, e, d.S, d.N)

    return Instance("glu", attrs, fill, d.S, lambda n: n, d.rows)


def convolution(d: Dims, rng: Rng) -> Instance:
    stride, kernel = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    before, later = int(rng.integers(max(1, kernel - stride), kernel + 1)), bool(rng.integers(0, 2))
    layer = Layer.draw(rng, ("weight", "bias", "multiplier"), d.N, kernel * d.E)
    activated = bool(rng.integers(0, 2))
    attrs = {
        "kernel": kernel, "stride": stride, "before": before, "shift": layer.shift, "zero_point": zero_point(rng)
    }  # fmt: skip

    def fill(rng: Rng) -> Arrays:
        table = {"table": int8s(rng, 256)} if activated else {}
        history = {"history": int8s(rng, before, d.E)} if later else {}
        x, pad = int8s(rng, d.S * stride, d.E), int8s(rng, 1, d.E)
        return {"x": x, "pad": pad, **layer.fill(rng), **table, **history}

    return Instance("convolution", attrs, fill, d.S, lambda n: n, d.rows)


def ffn(d: Dims, rng: Rng) -> Instance:
    e, limit = _epilogue(rng, d.N, residual=None, wide=bool(rng.integers(0, 2)))
    first = Layer.draw(rng, ("w1", "b1", "m1"), d.F, d.E)
    second = Layer.draw(rng, ("w2", "b2", "m2"), d.N, d.F, limit)
    activated = bool(rng.integers(0, 2))
    attrs = {
        "shift1": first.shift, "shift2": second.shift, "hidden_zero_point": zero_point(rng), **e.attrs()
    }  # fmt: skip

    def fill(rng: Rng) -> Arrays:
        table = {"table": int8s(rng, 256)} if activated else {}
        return {
            "x": int8s(rng, d.S, d.E), **first.fill(rng), **table, **second.fill(rng),
            **_epilogue_arrays(rng, e, d.S, d.N),
        }  # fmt: skip

    return Instance("ffn", attrs, fill, d.S, lambda n: n, d.rows)


def embed(d: Dims, rng: Rng) -> Instance:
    e, _ = _epilogue(rng, d.E, residual=False, wide=bool(rng.integers(0, 2)))
    vocabulary, types, by_row = d.F, d.N, bool(rng.integers(0, 2))
    positioned, segmented, later = (bool(flag) for flag in rng.integers(0, 2, 3))
    names = ["token", *(["position"] if positioned else []), *(["segment"] if segmented else [])]
    most = max(1, 2 ** (min(e.bits, 31) - 1) // (128 * len(names)))
    factors = {f"{name}_factor": int(rng.choice([1, most, rng.integers(1, most + 1)])) for name in names}
    if by_row:
        factors["position_shift"] = max(0, factors.pop("position_factor", 1).bit_length() - 1)

    def fill(rng: Rng) -> Arrays:
        arrays: Arrays = {
            "ids": rng.integers(0, vocabulary, d.S).astype(np.uint16), "tokens": int8s(rng, vocabulary, d.E)
        }  # fmt: skip
        if by_row:
            arrays["row_factors"] = integers(rng, min(most, 65535), vocabulary, low=1).astype(np.uint16)
        if positioned:
            arrays["positions"] = int8s(rng, 2 * d.S, d.E)
        if segmented:
            arrays["segment_ids"] = rng.integers(0, types, d.S).astype(np.uint16)
            arrays["segments"] = int8s(rng, types, d.E)
        start = {"start": np.asarray(rng.integers(0, d.S + 1), np.int32)} if later and positioned else {}
        return {**arrays, **_epilogue_arrays(rng, e, d.S, d.E), **start}

    return Instance("embed", {**factors, **e.attrs()}, fill, d.S, lambda n: n, d.rows)


def layer_norm(d: Dims, rng: Rng) -> Instance:
    M = int(rng.choice([1, d.S]))
    e, _ = _epilogue(rng, d.E, residual=True)
    e = dataclasses.replace(
        e, norm=True, scaled=False, bits=qparams.norm_bits(d.E), root_extent=integer.root_extent(d.E), shift=0
    )
    if rng.integers(0, 2):
        e = dataclasses.replace(e, norm=False, scaled=True, bits=24, shift=int(rng.integers(0, 9)))

    def fill(rng: Rng) -> Arrays:
        return _epilogue_arrays(rng, e, M, d.E)

    return Instance("layer_norm", e.attrs(), fill, d.S, lambda n: min(n, M), d.rows)


def _pooled(rng: Rng, cols: int) -> Epilogue:
    """The epilogue behind a pooled row of an int16 stream."""
    e, _ = _epilogue(rng, cols, residual=False, wide=bool(rng.integers(0, 2)))
    return dataclasses.replace(e, norm=False)


def mean(d: Dims, rng: Rng) -> Instance:
    if rng.integers(0, 2):
        shift = shift_below(rng, 2**15 * d.S)
        e = _pooled(rng, d.E)
        attrs = {"epilogue": 1, "ratio": int(multipliers(rng, 1)[0]), "shift": shift, **e.attrs()}
        attrs["out_shift"] = int(rng.integers(0, 2))  # the mean has up to 30 bits
        return Instance("mean", attrs, lambda rng: {"x": int16s(rng, d.S, d.E)}, d.S, lambda n: 1)
    attrs = {
        "epilogue": 0,
        "zero_point_in": zero_point(rng),
        "ratio": int(multipliers(rng, 1)[0]),
        "shift": shift_below(rng, 255 * d.S),
        "zero_point": zero_point(rng),
    }
    return Instance("mean", attrs, lambda rng: {"x": int8s(rng, d.S, d.E)}, d.S, lambda n: 1)


def first(d: Dims, rng: Rng) -> Instance:
    if rng.integers(0, 2):
        attrs = {"epilogue": 1, **_pooled(rng, d.E).attrs(), "out_shift": int(rng.integers(0, 17))}
        return Instance("first", attrs, lambda rng: {"x": int16s(rng, d.S, d.E)}, d.S, lambda n: 1)
    return Instance("first", {"epilogue": 0}, lambda rng: {"x": int8s(rng, d.S, d.E)}, d.S, lambda n: 1)


def lookup(d: Dims, rng: Rng) -> Instance:
    def fill(rng: Rng) -> Arrays:
        return {"x": int8s(rng, d.S, d.E), "table": int8s(rng, 256)}

    return Instance("lookup", {}, fill, d.S, lambda n: d.S)


def matmul(d: Dims, rng: Rng) -> Instance:
    attrs = {
        "multiplier": int(multipliers(rng, 1)[0]),
        "shift": shift_below(rng, d.E * 128 * 128),
        "zero_point": zero_point(rng),
    }

    def fill(rng: Rng) -> Arrays:
        return {"a": int8s(rng, d.heads, d.S, d.E), "b": int8s(rng, d.heads, d.N, d.E)}

    return Instance("matmul", attrs, fill, d.S, lambda n: d.heads, d.rows)


def binary(d: Dims, rng: Rng) -> Instance:
    kind = str(rng.choice(BINARY))
    shape = (d.heads, d.S, d.width, d.E)
    parts = {}
    attrs: dict[str, Any] = {f"d{axis}": extent for axis, extent in enumerate(shape)}
    for letter in "ab":
        kept = [bool(keep) for keep in rng.integers(0, 2, 4)]
        step, strides = 1, [0] * 4
        for axis in reversed(range(4)):
            strides[axis] = step if kept[axis] else 0
            step *= shape[axis] if kept[axis] else 1
        parts[letter] = step
        attrs |= {f"{letter}{axis}": stride for axis, stride in enumerate(strides)}
    most = 2**14 if kind in ("add", "maximum", "minimum") else 1
    fa, fb = (int(rng.choice([1, most, rng.integers(1, most + 1)])) for _ in "ab")
    bound = {"multiply": 255 * 255, "divide": 255}.get(kind, 255 * (fa + fb))
    attrs |= {
        "kind": kind, "fa": fa, "fb": -fb if kind == "add" and rng.integers(0, 2) else fb,
        "za": zero_point(rng), "zb": zero_point(rng), "zero_point": zero_point(rng),
        "multiplier": int(multipliers(rng, 1)[0]), "shift": shift_below(rng, bound),
    }  # fmt: skip

    def fill(rng: Rng) -> Arrays:
        return {letter: int8s(rng, size) for letter, size in parts.items()}

    return Instance("binary", attrs, fill, d.S, lambda n: int(np.prod(shape)))


def copy(d: Dims, rng: Rng) -> Instance:
    size = d.S * d.E * d.heads
    if rng.integers(0, 3) == 0:
        places = rng.integers(0, size, d.F).astype(np.uint16)
        return Instance("copy", {}, lambda rng: {"x": int8s(rng, size), "index": places}, d.S, lambda n: d.F)
    axes = rng.permutation(3)
    extents, strides = np.array([d.heads, d.S, d.E])[axes], np.array([d.S * d.E, d.E, 1])[axes]
    base = 0
    if rng.integers(0, 2):  # backwards along the first axis
        base, strides[0] = int((extents[0] - 1) * strides[0]), -strides[0]
    attrs: dict[str, int] = {"base": base, "d0": 1, "x0": 0}
    attrs |= {f"d{i + 1}": int(extent) for i, extent in enumerate(extents)}
    attrs |= {f"x{i + 1}": int(stride) for i, stride in enumerate(strides)}
    return Instance("copy", attrs, lambda rng: {"x": int8s(rng, size)}, d.S, lambda n: size)


def softmax(d: Dims, rng: Rng) -> Instance:
    by_length = bool(rng.integers(0, 2))
    rows, masked = d.heads * d.F, bool(rng.integers(0, 2))
    numerators, shift = qparams.ratio(float(rng.uniform(1, 255)), EXPONENTIAL_ONE)
    attrs = {
        "ratio": int(numerators[0]), "shift": shift, "zero_point": zero_point(rng), "by_length": int(by_length)
    }  # fmt: skip

    def fill(rng: Rng) -> Arrays:
        table = np.round(EXPONENTIAL_ONE * np.exp(-np.arange(256) * rng.uniform(0, 0.2))).astype(np.uint16)
        mask = {"mask": rng.integers(0, 2, (d.F, d.S)).astype(np.uint8)} if masked else {}
        return {"x": int8s(rng, rows, d.S), **mask, "table": table}

    return Instance("softmax", attrs, fill, d.S, lambda n: rows)


def reduce(d: Dims, rng: Rng) -> Instance:
    attrs: dict[str, Any] = {
        "kind": str(rng.choice(["sum", "max", "min"])),
        "zero_point_in": zero_point(rng),
        "multiplier": int(multipliers(rng, 1)[0]),
        "shift": shift_below(rng, 255 * d.E),
        "zero_point": zero_point(rng),
    }
    return Instance("reduce", attrs, lambda rng: {"x": int8s(rng, d.S, d.E, d.N)}, d.S, lambda n: d.S)


def concat(d: Dims, rng: Rng) -> Instance:
    widths = [d.E, d.N, d.F, d.width][: int(rng.integers(2, 5))]
    attrs: dict[str, int] = {"zero_point": zero_point(rng)}
    for i in range(4):
        multiplier, shift = int(multipliers(rng, 1)[0]), shift_below(rng, 255)
        attrs |= {f"z{i}": zero_point(rng), f"m{i}": multiplier, f"s{i}": shift}

    def fill(rng: Rng) -> Arrays:
        return {f"x{i}": int8s(rng, d.S, width) for i, width in enumerate(widths)}

    return Instance("concat", attrs, fill, d.S, lambda n: d.S)


def depthwise(d: Dims, rng: Rng) -> Instance:
    """Taps, strides, dilations and paddings of which every place of the result has at least one tap inside."""
    extents, per_channel = (d.S % 5 + 2, d.F % 6 + 2), int(rng.choice([1, 2]))
    places, taps = [], []
    attrs: dict[str, Any] = {}
    for axis, extent in zip("yx", extents, strict=True):
        stride, step, count = (int(rng.integers(1, 4)), int(rng.integers(1, 3)), int(rng.integers(1, 4)))
        before = int(rng.integers(0, (count - 1) * step + 1))
        places.append(1 + (extent - 1 + before) // stride)
        while (places[-1] - 1) * stride - before > extent - 1 or places[-1] * stride > extent + before:
            places[-1] -= 1
        places[-1] = max(1, places[-1])
        taps.append(count)
        attrs |= {f"stride_{axis}": stride, f"before_{axis}": before, f"step_{axis}": step}
    N = d.E * per_channel
    attrs |= {
        "rows": places[0],
        "cols": places[1],
        "zero_point_in": zero_point(rng),
        "zero_point": zero_point(rng),
    }
    attrs["shift"] = shift_below(rng, 255 * 128 * taps[0] * taps[1] + 2**20)

    def fill(rng: Rng) -> Arrays:
        return {
            "x": int8s(rng, *extents, d.E), "weight": int8s(rng, *taps, N),
            "bias": integers(rng, 2**20, N).astype(np.int32),
            "multiplier": multipliers(rng, N).astype(np.int32),
        }  # fmt: skip

    return Instance("depthwise", attrs, fill, d.S, lambda n: places[0] * places[1])


def unpack(d: Dims, rng: Rng) -> Instance:
    bits, by_row = int(rng.integers(1, 8)), bool(rng.integers(0, 2))
    table_rows, count = (d.F, d.E) if by_row else (1, d.E * d.F)

    def fill(rng: Rng) -> Arrays:
        size = -(-count * bits // 8)
        data = rng.integers(0, 256, (table_rows, size)).astype(np.uint8)
        ids = {"ids": rng.integers(0, table_rows, d.S).astype(np.uint16)} if by_row else {}
        return {**ids, "data": data, "codebook": int8s(rng, 2**bits)}

    return Instance("unpack", {"count": count}, fill, d.S, lambda n: n if by_row else 1)


def huffman(d: Dims, rng: Rng) -> Instance:
    """Permutations of the same bytes have the same code and size."""
    by_row, distinct = bool(rng.integers(0, 2)), int(rng.integers(1, 257))
    table_rows, count = (d.F, d.E) if by_row else (1, d.E * d.F)
    share = np.exp(-np.arange(distinct) * rng.uniform(0, 0.5))
    values = rng.choice(rng.permutation(256)[:distinct], table_rows * count, p=share / share.sum())
    code = Code.of(histogram_of(values.astype(np.uint8)))

    def fill(rng: Rng) -> Arrays:
        data, starts = code.encode(rng.permutation(values).astype(np.uint8).reshape(table_rows, count))
        arrays = {"data": data, "symbols": code.symbols, "lengths": code.lengths}
        ids = rng.integers(0, table_rows, d.S).astype(np.uint16)
        return {"ids": ids, "starts": starts, **arrays} if by_row else arrays

    attrs = {"count": count, "unsigned": int(rng.integers(0, 2))}
    return Instance("huffman", attrs, fill, d.S, lambda n: n if by_row else 1)


GENERATORS: dict[str, Callable[[Dims, Rng], Instance]] = {
    function.__name__: function
    for function in (
        attention, attention_step, binary, concat, convolution, copy, dense, depthwise, embed, ffn, first, glu,
        huffman, layer_norm, lookup, matmul, mean, reduce, softmax, unpack,
    )
}  # fmt: skip
