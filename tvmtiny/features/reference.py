"""What a front end means, in float64: the formulas that librosa, torchaudio and transformers compute.

Spectra are powers of a short-time Fourier transform with a periodic window; triangular mel filters as in
Slaney's Auditory Toolbox (Interval Research technical report 1998-010) or with the mel scale of HTK (HTK Book 3.4,
section 5.4); cepstra by an orthonormal DCT-II.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tvmtiny.features.spec import AudioSpec, SensorSpec, Values

Array = npt.NDArray[np.float64]

SAMPLE_SCALE = 32768
LOG_OF_TWO = {"natural": np.log(2), "log10": np.log10(2), "db": 10 * np.log10(2)}
"""Real value of one unit of log2, by `AudioSpec.log`."""


def reference_rows(spec: AudioSpec | SensorSpec, samples: npt.ArrayLike) -> Array:
    """Real features of a whole recording.

    Args:
        samples: int16 PCM (N,), or raw samples (N, C).

    Returns:
        (frames, columns), or (N, C).
    """
    if isinstance(spec, SensorSpec):
        return (np.asarray(samples, np.float64) - column_values(spec.offset, spec.columns)) * column_values(
            spec.gain, spec.columns
        )
    logs = log_mel(spec, np.asarray(samples, np.float64) / SAMPLE_SCALE * spec.full_scale)
    rows = logs @ cepstral_transform(spec).T if spec.kind == "mfcc" else logs
    return (rows - column_values(spec.mean, spec.columns)) / column_values(spec.std, spec.columns)


def log_mel(spec: AudioSpec, signal: Array) -> Array:
    """Logarithms of the filters' energies, (frames, mels), of a signal in real units."""
    if spec.pre_emphasis:
        signal = np.append(signal[:1], signal[1:] - spec.pre_emphasis * signal[:-1])
    powers = np.abs(np.fft.rfft(frames(spec, signal) * window_weights(spec), spec.fft)) ** 2
    energies = np.maximum(powers @ mel_filters(spec).T, spec.floor)
    return np.log2(energies) * LOG_OF_TWO[spec.log]


def frames(spec: AudioSpec, signal: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(frames, window) of a signal that is padded as the description has it."""
    if spec.pad == "zero":
        signal = np.pad(signal, spec.window // 2)
    elif spec.pad == "reflect":
        signal = np.pad(signal, spec.window // 2, mode="reflect")
    if len(signal) < spec.window:
        return np.zeros((0, spec.window), signal.dtype)
    return np.lib.stride_tricks.sliding_window_view(signal, spec.window)[:: spec.hop]


def window_weights(spec: AudioSpec) -> Array:
    """Weights (window,) of a frame's samples."""
    least = {"hann": 0.5, "hamming": 0.54}[spec.window_function]
    return least - (1 - least) * np.cos(2 * np.pi * np.arange(spec.window) / spec.window)


def to_mel(hertz: npt.ArrayLike, scale: str) -> Array:
    """Frequencies on the mel scale."""
    hertz = np.asarray(hertz, np.float64)
    if scale == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    linear = hertz * 3 / 200
    return np.where(hertz < 1000, linear, 15 + np.log(np.maximum(hertz, 1000) / 1000) * 27 / np.log(6.4))


def to_hertz(mel: npt.ArrayLike, scale: str) -> Array:
    """The inverse of `to_mel`."""
    mel = np.asarray(mel, np.float64)
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((np.maximum(mel, 15) - 15) * np.log(6.4) / 27))


def mel_edges(spec: AudioSpec) -> Array:
    """Hz of where filters begin, peak and end, (mels + 2,): filter m begins at edge m and peaks at m + 1."""
    low, high = to_mel([spec.fmin, spec.fmax], spec.mel_scale)
    return to_hertz(np.linspace(low, high, spec.mels + 2), spec.mel_scale)


def filter_gains(spec: AudioSpec) -> Array:
    """The height (mels,) of each triangle: 1, or 2 by its width in Hz."""
    edges = mel_edges(spec)
    return np.ones(spec.mels) if spec.mel_norm == "none" else 2 / (edges[2:] - edges[:-2])


def mel_filters(spec: AudioSpec) -> Array:
    """Weights (mels, fft / 2 + 1)."""
    edges, hertz = mel_edges(spec)[:, None], np.arange(spec.fft // 2 + 1) * spec.sample_rate / spec.fft
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)) * filter_gains(spec)[:, None]


def cepstral_transform(spec: AudioSpec) -> Array:
    """Orthonormal DCT-II with its lifter, (coefficients, mels)."""
    order = np.arange(spec.coefficients)[:, None]
    matrix = np.sqrt(2 / spec.mels) * np.cos(np.pi * order * (np.arange(spec.mels) + 0.5) / spec.mels)
    matrix[0] /= np.sqrt(2)
    if spec.lifter:
        matrix *= 1 + spec.lifter / 2 * np.sin(np.pi * (order + 1) / spec.lifter)
    return matrix


def column_values(values: Values, columns: int) -> Array:
    """One number a column, of these or of the only one."""
    return np.broadcast_to(np.asarray(values, np.float64), (columns,))
