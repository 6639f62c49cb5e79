"""What a user may choose about the integer model: checked in one place, for every command that makes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import tvm

from tvmtiny.errors import UserError
from tvmtiny.passes import fold_query_key
from tvmtiny.passes.int16_layers import RESIDUALS
from tvmtiny.passes.pipeline import fusion_passes
from tvmtiny.passes.quantize import QuantizedModel, quantize
from tvmtiny.passes.smooth import smooth
from tvmtiny.passes.step import SteppedModel
from tvmtiny.passes.step import step as run_in_steps
from tvmtiny.passes.weight_types import weight_types
from tvmtiny.quant import ranges
from tvmtiny.quant.calibrate import Statistics
from tvmtiny.quant.qparams import ROUNDINGS
from tvmtiny.schedule.records import OBJECTIVES, RULES
from tvmtiny.storage.choice import AS_THEY_ARE, FORMS, PLACES, Storage

WEIGHTS = ("int8", "int4", "int16")
"""How flash may hold the weights of dense layers; int16 are the values of int8, stored wide."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Arguments of `tvmtiny.compile`, which says what each means, that decide on the model and not on its files.

    Raises:
        UserError: a choice that there is not, or two that exclude each other.
    """

    max_tokens: int | None = None
    shapes: dict[str, tuple[int, ...]] | None = None
    range_method: str = "auto"
    fold_qk: str = "auto"
    weights: str = "int8"
    layer_weights: Mapping[str, str] | None = None
    rounding: str = "auto"
    bias_correction: bool = False
    smooth: bool = False
    compress_weights: str = AS_THEY_ARE.form
    decode: str = AS_THEY_ARE.place
    residual: str = "int8"
    step: int | None = None
    int16: Sequence[str] = field(default=())
    tuned: str = "balanced"

    def __post_init__(self) -> None:
        for what, value, choices in (
            ("range method", self.range_method, ranges.METHODS),
            ("folding of Q K^T", self.fold_qk, fold_query_key.MODES),
            ("storage of weights", self.weights, WEIGHTS),
            ("rounding of weights", self.rounding, ROUNDINGS),
            ("compression of weights", self.compress_weights, FORMS),
            ("time to decode weights", self.decode, PLACES),
            ("type of the residual stream", self.residual, RESIDUALS),
            ("objective of schedules", self.tuned, (*OBJECTIVES, RULES)),
        ):
            if value not in choices:
                raise UserError(f"Unknown {what} '{value}'.", f"Use one of {', '.join(choices)}.")
        for option, number in (("--max-tokens", self.max_tokens), ("--step", self.step)):
            if number is not None and number < 1:
                raise UserError(f"{option} is {number}.", "Give at least 1.")
        self._check_pairs()

    def _check_pairs(self) -> None:
        if self.step is not None and self.fold_qk == "always":
            raise UserError(
                "--fold-qk always: a model that runs in steps keeps keys.", "Leave it out, or --step."
            )
        if self.storage != AS_THEY_ARE and self.weights == "int16":
            raise UserError(
                "--weights int16 takes flash to save time, --compress-weights time to save flash.",
                "Leave one of them out.",
            )

    @property
    def storage(self) -> Storage:
        """How weights are to lie in flash."""
        if self.compress_weights == AS_THEY_ARE.form:
            return AS_THEY_ARE
        return Storage(self.compress_weights, self.decode)

    @property
    def by_data(self) -> tuple[str, ...]:
        """The choices that have no effect without calibration data."""
        rounding = ("--rounding gptq",) if self.rounding == "gptq" else ()
        return rounding + (("--bias-correction",) if self.bias_correction else ())

    def fuse(self, imported: tvm.IRModule) -> tvm.IRModule:
        """The fused float module."""
        return tvm.transform.Sequential(fusion_passes("never" if self.step else self.fold_qk))(imported)

    def weight_types(self, fused: tvm.IRModule) -> dict[str, str]:
        """The type in which each matrix is quantized; int16 are the values of int8."""
        return weight_types(fused, "int4" if self.weights == "int4" else "int8", self.layer_weights)

    def smoothed(self, fused: tvm.IRModule, statistics: Statistics) -> tvm.IRModule:
        """The fused float module with smoother tensors."""
        return smooth(fused, statistics, self.weight_types(fused), self.range_method)

    def quantize(self, fused: tvm.IRModule, statistics: Statistics) -> QuantizedModel:
        """The integer model of whole sequences."""
        return quantize(
            fused,
            statistics,
            self.range_method,
            self.residual,
            self.weight_types(fused),
            self.int16,
            self.rounding,
            self.bias_correction,
        )

    def in_steps(self, quantized: QuantizedModel) -> tuple[SteppedModel | None, QuantizedModel]:
        """The model of a step, if there is to be one, and the model that becomes C."""
        if self.step is None:
            return None, quantized
        stepped = run_in_steps(quantized, self.step)
        return stepped, stepped.of(quantized)
