"""Write the .tflite files beside this script: small Keras models with random weights, float and quantized to int8.

    python -m venv tf && tf/bin/pip install tensorflow-cpu==2.21.0 && tf/bin/python tests/data/tflite/make.py

TensorFlow is needed for this alone, and is no dependency of tvmtiny or of its tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

PLACE = Path(__file__).parent
S, E, H, CLASSES, VOCABULARY, SAMPLES = 12, 16, 2, 5, 40, 64
layers = tf.keras.layers


def block(x: Any, activation: str) -> Any:
    """A post-LayerNorm transformer layer."""
    attended = layers.MultiHeadAttention(H, E // H)(x, x)
    x = layers.LayerNormalization(epsilon=1e-5)(layers.Add()([x, attended]))
    hidden = layers.Dense(E)(layers.Dense(2 * E, activation=activation)(x))
    return layers.LayerNormalization(epsilon=1e-5)(layers.Add()([x, hidden]))


def classified(inputs: Any, x: Any) -> Any:
    """Mean over tokens and a classifier."""
    x = layers.GlobalAveragePooling1D()(x)
    return tf.keras.Model(inputs, layers.Dense(CLASSES)(x))


def encoder() -> Any:
    """Windows of six sensor values."""
    inputs = tf.keras.Input(batch_shape=(1, S, 6), name="window")
    return classified(inputs, block(layers.Dense(E)(inputs), "relu"))


class Positions(layers.Layer):
    """Adds a learned row to each token."""

    def build(self, shape: Any) -> None:
        """Make the table."""
        self.table = self.add_weight(shape=shape[1:], initializer="random_normal")

    def call(self, x: Any) -> Any:
        """Add it."""
        return x + self.table


def text() -> Any:
    """Token ids, without a mask."""
    inputs = tf.keras.Input(batch_shape=(1, S), dtype="int32", name="ids")
    return classified(inputs, block(Positions()(layers.Embedding(VOCABULARY, E)(inputs)), "gelu"))


def images() -> Any:
    """Convolutions, no attention."""
    inputs = tf.keras.Input(batch_shape=(1, 8, 8, 2), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(8, 2, padding="valid", activation="relu6")(x)
    x = layers.Dense(16, activation="tanh")(layers.Flatten()(x))
    return tf.keras.Model(inputs, layers.Dense(CLASSES)(x))


def samples(model: Any, random: np.random.Generator) -> Callable[[], Iterator[list[np.ndarray]]]:
    """Data from which the converter takes its ranges."""
    shape, ids = model.inputs[0].shape, model.inputs[0].dtype == "int32"
    draw = random.integers(0, VOCABULARY, (SAMPLES, *shape)) if ids else random.normal(size=(SAMPLES, *shape))
    return lambda: ([row.astype(np.int32 if ids else np.float32)] for row in draw)


def converted(model: Any, data: Any, *, quantized: bool) -> bytes:
    """The model as a .tflite file."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if quantized:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = data
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if model.inputs[0].dtype != "int32":
            converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    return converter.convert()


def main() -> None:
    """Write all files."""
    for build in (encoder, text, images):
        tf.keras.utils.set_random_seed(3)
        random = np.random.default_rng(3)
        model = build()
        # Biases of 0 and gammas of 1 would be left out by the converter.
        model.set_weights([w + random.normal(size=w.shape) * 0.1 for w in model.get_weights()])
        data = samples(model, random)
        for quantized in (False, True):
            name = f"{build.__name__}_{'int8' if quantized else 'float'}.tflite"
            (PLACE / name).write_bytes(converted(model, data, quantized=quantized))


if __name__ == "__main__":
    main()
