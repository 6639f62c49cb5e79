"""Models that their author has quantized: in ONNX's QDQ format, by ONNX Runtime's `quantize_static`."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import onnxruntime

SAMPLES = 16


def quantized(
    model: onnx.ModelProto,
    data: Mapping[str, np.ndarray],
    *,
    activations: str = "QInt8",
    per_channel: bool = False,
    **options: Any,
) -> onnx.ModelProto:
    """A model with the scales that ONNX Runtime finds in data (N, ...), by the range from least to largest value.

    The argument of a softmax stays float: with a mask of large values it would have no other scale than theirs.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    class Reader:
        rows = iter(range(len(next(iter(data.values())))))

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.rows, None)
            return None if row is None else {name: array[row : row + 1] for name, array in data.items()}

    logging.disable(logging.WARNING)
    with (
        tempfile.TemporaryDirectory() as place,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        source, result = Path(place) / "float.onnx", Path(place) / "int8.onnx"
        source.write_bytes(model.SerializeToString())
        quantize_static(
            source,
            result,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType[activations],
            weight_type=QuantType.QInt8,
            per_channel=per_channel,
            nodes_to_exclude=[node.name for node in model.graph.node if node.op_type == "Softmax"],
            **options,
        )
        found = onnx.load(result)
    logging.disable(logging.NOTSET)
    return found


def encoder_data(count: int = SAMPLES, seed: int = 1) -> dict[str, np.ndarray]:
    """Ids and masks 1..10..0 for `models.encoder_model`."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, models.S + 1, count)
    lengths[0] = models.S
    return {
        "ids": random.integers(0, models.VOCABULARY, (count, models.S)),
        "mask": (np.arange(models.S) < lengths[:, None]).astype(np.int64),
    }


def sensor_data(count: int = SAMPLES, seed: int = 1) -> dict[str, np.ndarray]:
    """Windows for `models.sensor_model`."""
    values = np.random.default_rng(seed).normal(size=(count, 16, 3))
    return {"window": (values * (np.arange(3) + 2) + np.arange(3)).astype(np.float32)}


@functools.cache
def encoder(activations: str = "QInt8", *, per_channel: bool = False) -> onnx.ModelProto:
    """A small encoder with a mask, quantized."""
    return quantized(models.encoder_model(), encoder_data(), activations=activations, per_channel=per_channel)


@functools.cache
def sensor(activations: str = "QInt8", *, per_channel: bool = False) -> onnx.ModelProto:
    """A model of sensor windows, quantized."""
    return quantized(models.sensor_model(), sensor_data(), activations=activations, per_channel=per_channel)


def results(model: onnx.ModelProto, data: Mapping[str, np.ndarray]) -> np.ndarray:
    """The first output by ONNX Runtime, a row a sample."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    rows = [
        session.run(None, {name: data[name][row : row + 1] for name in names})[0]
        for row in range(len(data[names[0]]))
    ]
    return np.concatenate(rows)


def decibels(expected: np.ndarray, actual: np.ndarray) -> float:
    """Signal to noise ratio of `actual`."""
    return float(10 * np.log10(np.sum(expected**2) / np.sum((expected - actual) ** 2)))
