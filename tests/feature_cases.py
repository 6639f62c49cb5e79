"""Descriptions of front ends and signals for their tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tvmtiny.features.spec import Spec, parse_spec

Pcm = npt.NDArray[np.int16]

SPECS: dict[str, dict[str, Any]] = {
    # torchaudio.transforms.MFCC(sample_rate=8000, n_mfcc=13) with a floor in place of top_db
    "digits": {
        **{"kind": "mfcc", "sample_rate": 8000, "window": 400, "hop": 200, "mels": 128, "coefficients": 13},
        **{"pad": "reflect", "log": "db", "floor": 3e-7},
    },
    "keywords": {
        **{"kind": "mfcc", "sample_rate": 16000, "window": 400, "hop": 160, "fft": 512, "mels": 40},
        **{"fmin": 20, "fmax": 7600, "coefficients": 10, "floor": 1e-6},
    },
    "whisper": {
        **{"kind": "log-mel", "sample_rate": 16000, "window": 400, "hop": 160, "mels": 80, "pad": "reflect"},
        **{"mel_scale": "slaney", "mel_norm": "slaney", "log": "log10"},
    },
    "emphasized": {
        **{"kind": "log-mel", "sample_rate": 16000, "window": 480, "hop": 320, "fft": 512, "mels": 23},
        **{"pre_emphasis": 0.97, "full_scale": 32768.0, "floor": 1.0, "window_function": "hamming"},
    },
    "long": {
        **{"kind": "log-mel", "sample_rate": 44100, "window": 2048, "hop": 512, "mels": 96, "pad": "zero"},
        **{"mel_scale": "slaney", "log": "db", "floor": 1e-6},
    },
    "short": {
        **{"kind": "mfcc", "sample_rate": 8000, "window": 120, "hop": 150, "fft": 120, "mels": 20},
        **{"coefficients": 20, "lifter": 22, "log": "log10"},
    },
}


def spec(name: str) -> Spec:
    return parse_spec(SPECS[name])


def signals(count: int) -> dict[str, Pcm]:
    """Recordings of speech-like, faint and extreme levels."""
    random, t = np.random.default_rng(5), np.arange(count)
    bursts = random.normal(size=count) * 3000 * (1 + np.sin(t / 900)) ** 2
    chirp = 20000 * np.sin(2 * np.pi * t * t / count / 5)
    found = {
        "bursts": np.clip(bursts, -32768, 32767),
        "faint": random.integers(-2, 3, count),
        "silence": np.zeros(count),
        "constant": np.full(count, -1234),
        "square": np.where(t // 20 % 2, 32767, -32768),
        "alternating": np.where(t % 2, 32767, -32768),
        "lowest": np.full(count, -32768),
        "chirp": chirp,
        "click": np.where(t == count // 2, 32767, 0),
        "tone": 32000 * np.sin(2 * np.pi * t * 0.1234),
    }
    return {name: np.rint(values).astype(np.int16) for name, values in found.items()}


@st.composite
def audio_specs(draw: st.DrawFn) -> Spec:
    """Any description that is accepted, small enough to be quick."""
    fft = draw(st.sampled_from([16, 60, 64, 100, 128, 144, 180, 200, 256, 320, 400, 512]))
    window = 2 * draw(st.integers(1, fft // 2))
    pad = draw(st.sampled_from(["none", "zero", "reflect"]))
    mels = draw(st.integers(1, 24))
    kind = draw(st.sampled_from(["log-mel", "mfcc"]))
    rate = draw(st.sampled_from([8000, 16000]))
    first = draw(st.integers(0, fft // 2 - 2))  # there is a frequency between the edges
    edges = [
        first * rate / fft - draw(st.floats(0, 1)) * (first > 0),
        draw(st.integers(first + 2, fft // 2)) * rate / fft,
    ]
    data: dict[str, Any] = {
        **{
            "kind": kind,
            "sample_rate": rate,
            "fft": fft,
            "window": window,
            "hop": draw(st.integers(1, 2 * fft)),
        },
        **{"mels": mels, "pad": pad, "fmin": edges[0], "fmax": edges[1]},
        **{name: draw(st.sampled_from(values)) for name, values in _CHOICES.items()},
        "window_function": "hann" if pad == "reflect" else draw(st.sampled_from(["hann", "hamming"])),
        "pre_emphasis": draw(st.sampled_from([0.0, 0.5, 0.97])) if pad == "none" else 0.0,
    }
    if kind == "mfcc":
        data |= {"coefficients": draw(st.integers(1, mels)), "lifter": draw(st.sampled_from([0, 22]))}
    return parse_spec(data)


_CHOICES: dict[str, list[Any]] = {
    "mel_scale": ["htk", "slaney"],
    "mel_norm": ["none", "slaney"],
    "log": ["natural", "log10", "db"],
    "floor": [1e-10, 1e-6, 1.0],
    "full_scale": [1.0, 32768.0],
}
