"""Product of two tensors that both depend on the input: a (B, M, K), b (B, N, K) -> (B, M, N), all symmetric."""

from __future__ import annotations

from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import products
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands
from tvmtiny.quant import integer
from tvmtiny.quant.tensor_arithmetic import product_acc


def _infer(o: Operands) -> relax.TensorType:
    (B, M, _), (_, N, _) = o.shape("a"), o.shape("b")
    return relax.TensorType([B, M, N], "int8")


def _reference(o: Operands, n: int) -> Array:
    a = o.attrs
    return integer.requantize_s8(product_acc(o["a"], o["b"]), a["multiplier"], a["shift"], a["zero_point"])


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (B, M, K), (_, N, _) = o.shape("a"), o.shape("b")
    multiplier, shift, zero_point = (o.attrs[key] for key in ("multiplier", "shift", "zero_point"))
    W = blocking.workspace(M, K)

    @T.prim_func(private=True, s_tir=True)
    def matmul(
        a: T.Buffer((B, M, K), "int8"), b: T.Buffer((B, N, K), "int8"), out: T.Buffer((B, M, N), "int8")
    ):
        workspace = T.sblock_alloc_buffer((W,), "int16")
        for batch in T.serial(B):
            products.product_s8(a, b, out, batch, workspace, M, N, K, multiplier, shift, zero_point)

    return matmul


def _macs(o: Operands, n: int) -> int:
    (B, M, K), (_, N, _) = o.shape("a"), o.shape("b")
    return B * M * N * K


KERNEL = Kernel(
    name="matmul",
    arguments=("a", "b"),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=_macs,
    tensor_product=True,
)
