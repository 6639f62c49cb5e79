"""Recordings in files: WAV, and .npz files with the key `samples`; cut into what a model takes at a time."""

from __future__ import annotations

import dataclasses
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmtiny.errors import UserError

SAMPLES_KEY = "samples"
COUNTS_KEY = "n_samples"


@dataclasses.dataclass(frozen=True)
class Recording:
    """Samples int16 (N,), or (N, channels), and how messages call them."""

    name: str
    samples: npt.NDArray[np.int16]


def read_wav(path: Path, sample_rate: int) -> Recording:
    """A mono WAV file of 16-bit PCM.

    Raises:
        UserError: the file is something else, or has another sample rate.
    """
    try:
        with wave.open(str(path)) as file:
            found = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise UserError(
            f"{path} is not a WAV file of PCM: {error}", "Give a mono WAV file of 16-bit PCM."
        ) from error
    if found != (1, 2, sample_rate):
        raise UserError(
            f"{path} has {found[0]} channel{'s' * (found[0] != 1)} of {8 * found[1]} bits at {found[2]} Hz.",
            f"The model takes one channel of 16 bits at {sample_rate} Hz: convert it.",
        )
    if len(data) % 2:
        raise UserError(
            f"{path} ends in the middle of a sample.", "Give the whole file: this one is cut off."
        )
    return Recording(path.name, np.frombuffer(data, "<i2").astype(np.int16))


def has_samples(path: Path) -> bool:
    """Whether an .npz file has raw samples in place of a model's inputs."""
    try:
        with np.load(path) as arrays:
            return SAMPLES_KEY in getattr(arrays, "files", ())
    except Exception:  # of zipfile, zlib or NumPy, as the damage is
        return False  # whatever reads the model's inputs says what is wrong


def read_recordings(path: Path, channels: int) -> list[Recording]:
    """The recordings of an .npz file: `samples` (N, length), or (N, length, channels), and perhaps `n_samples` (N,).

    Raises:
        UserError: the arrays are of another type or shape.
    """
    from tvmtiny.frontend.data import load_npz

    arrays = load_npz(path)
    if SAMPLES_KEY not in arrays:
        raise UserError(f"{path} has no '{SAMPLES_KEY}'.", "Give recordings under this key.")
    samples = arrays[SAMPLES_KEY]
    shape = (channels,) if channels > 1 else ()
    if samples.dtype != np.int16 or samples.ndim != 2 + len(shape) or samples.shape[2:] != shape:
        raise UserError(
            f"'{SAMPLES_KEY}' in {path} is {samples.dtype} of shape {'x'.join(map(str, samples.shape))}.",
            f"int16 of shape {'x'.join(('N', 'length', *map(str, shape)))} is needed.",
        )
    counts = arrays.get(COUNTS_KEY, np.full(len(samples), samples.shape[1]))
    numbers = counts.dtype.kind in "iuf" and counts.shape == (len(samples),)
    if not numbers or not np.all((counts >= 1) & (counts <= samples.shape[1])):
        raise UserError(
            f"'{COUNTS_KEY}' in {path} does not fit '{SAMPLES_KEY}'.",
            f"Give a number from 1 to {samples.shape[1]} for each recording.",
        )
    return [
        Recording(f"{path.name}[{index}]", row[: int(count)])
        for index, (row, count) in enumerate(zip(samples, counts, strict=True))
    ]


def cut(recording: Recording, about: dict[str, Any], *, has_length: bool) -> Iterator[Recording]:
    """The recordings of one run each: the whole of it for a model with a length, else every window that is due.

    Args:
        about: what the metadata says of the front end.

    Raises:
        UserError: there is not even one window.
    """
    most, step = about["most_samples"], about["stride_rows"] * about["hop"]
    if has_length or len(recording.samples) == most:
        yield recording
        return
    if len(recording.samples) < most:
        raise UserError(
            f"{recording.name} has {len(recording.samples)} samples; the model takes windows of {most}.",
            "Give a longer recording.",
        )
    for start in range(0, len(recording.samples) - most + 1, step):
        yield Recording(f"{recording.name} from {start}", recording.samples[start : start + most])
