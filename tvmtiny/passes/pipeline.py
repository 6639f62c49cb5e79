"""The float half of the compiler as the Relax pipeline `tvmtiny`, and its order, a line a step."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from tvmtiny.passes.convolution import PatchConvolution
from tvmtiny.passes.distribute_offset import DistributeOffset
from tvmtiny.passes.fold_query_key import FoldQueryKey
from tvmtiny.passes.fuse_attention import FuseAttention
from tvmtiny.passes.fuse_convolution import FuseConvolution
from tvmtiny.passes.fuse_dense import FoldScaling, FuseActivation, FuseDense
from tvmtiny.passes.fuse_embedding import FuseEmbedding, FuseSegments
from tvmtiny.passes.fuse_feed_forward import FuseFeedForward
from tvmtiny.passes.fuse_gated import FuseGated
from tvmtiny.passes.fuse_layer_norm import FuseLayerNorm
from tvmtiny.passes.fuse_residual import FuseNorm, FuseResidual
from tvmtiny.passes.fuse_rms_norm import FuseRmsNorm
from tvmtiny.passes.fuse_scale import FuseScale
from tvmtiny.passes.fuse_unit_length import FuseUnitLength
from tvmtiny.passes.name_layers import NameLayers
from tvmtiny.passes.recognize_id_mask import RecognizeIdMask
from tvmtiny.passes.recognize_length import RecognizeLength
from tvmtiny.passes.recognize_positions import RecognizePositions
from tvmtiny.passes.simplify import Simplify
from tvmtiny.passes.strip_views import FuseFirstToken, StripViews


def fusion_passes(fold_qk: str = "auto") -> list[tvm.transform.Pass]:
    """From an imported float module to one whose operators are those of `tvmtiny.passes.operators`.

    Args:
        fold_qk: one of `fold_query_key.MODES`.
    """
    return [
        Simplify(),
        RecognizePositions(),
        PatchConvolution(),
        Simplify(),
        RecognizeIdMask(),
        RecognizeLength(),
        FuseFirstToken(),
        FuseLayerNorm(),
        FuseRmsNorm(),
        FuseUnitLength(),
        FuseEmbedding(),
        FuseSegments(),
        FuseDense(),
        FuseActivation(),
        FuseScale(),
        FoldScaling(),
        FuseConvolution(),
        FuseAttention(),
        FuseFeedForward(),
        FuseGated(),
        StripViews(),
        DistributeOffset(),
        FuseResidual(),
        StripViews(),
        FuseNorm(),
        StripViews(),
        FoldQueryKey(fold_qk),
        NameLayers(),
    ]


@relax.register_pipeline("tvmtiny")
def tvmtiny_pipeline() -> tvm.transform.Pass:
    """`relax.get_pipeline("tvmtiny")`: fuse a transformer, then lower its operators to plain Relax.

    The result builds for any target of TVM; the micro back end continues from the fused form instead
    (see `tvmtiny.compiler`).
    """
    from tvmtiny.passes.decompose import Decompose

    @tvm.transform.module_pass(opt_level=0, name="tvmtiny")
    def run(module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        return tvm.transform.Sequential([*fusion_passes(), Decompose()])(module)

    return run
