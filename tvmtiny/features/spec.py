"""The description of a front end: a TOML file, checked field by field. docs/features.md documents it."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from tvmtiny.errors import UserError
from tvmtiny.frontend.names import listed, suggestion

KINDS = ("log-mel", "mfcc", "sensor")
LARGEST_FFT = 2048
MOST_FILTERS = 255

Values = tuple[float, ...]
"""A number a column."""


@dataclasses.dataclass(frozen=True)
class AudioSpec:
    """Log-mel energies or cepstral coefficients (MFCC) of 16-bit PCM.

    Attributes:
        kind: "log-mel" or "mfcc".
        sample_rate: Hz.
        window: samples of a frame. hop: samples from one to the next. fft: points of the transform, window or more.
        window_function: "hann" or "hamming", periodic.
        pad: what stands before the first sample and behind the last: "none", "zero", "reflect".
        mels: filters. fmin, fmax: Hz; the edges of the first and the last filter. mel_scale: "htk" or "slaney".
        mel_norm: "none", or "slaney": each filter divided by half its width in Hz.
        log: "natural", "log10" or "db" (10 log10), of the power.
        floor: the least power; smaller ones count as this.
        full_scale: the real value of the sample 32768.
        pre_emphasis: this times the sample before is taken off each sample.
        coefficients: cepstral coefficients, by an orthonormal DCT-II. lifter: as librosa has it; 0 for none.
        mean, std: each value less its mean is divided by std; one number, or one a column.
        stride: frames from one full input of the model to the next; 0 for those of a token.
    """

    kind: Literal["log-mel", "mfcc"]
    sample_rate: int
    window: int
    hop: int
    fft: int
    mels: int
    fmin: float
    fmax: float
    window_function: str = "hann"
    pad: str = "none"
    mel_scale: str = "htk"
    mel_norm: str = "none"
    log: str = "natural"
    floor: float = 1e-10
    full_scale: float = 1.0
    pre_emphasis: float = 0.0
    coefficients: int = 0
    lifter: float = 0.0
    mean: Values = (0.0,)
    std: Values = (1.0,)
    stride: int = 0

    @property
    def columns(self) -> int:
        """Values of a frame."""
        return self.coefficients if self.kind == "mfcc" else self.mels


@dataclasses.dataclass(frozen=True)
class SensorSpec:
    """Raw 16-bit samples of several channels: (raw - offset) * gain, in windows that overlap.

    Attributes:
        channels: C; a raw sample is one int16 of each.
        gain: real value of one unit of a channel. offset: raw value that is zero. One number, or one a channel.
        stride: samples from one full input of the model to the next; 0 for those of a token.
    """

    channels: int
    gain: Values
    offset: Values = (0.0,)
    stride: int = 0

    @property
    def columns(self) -> int:
        """Values of a sample."""
        return self.channels


Spec = AudioSpec | SensorSpec

_CHOICES = {
    "window_function": ("hann", "hamming"),
    "pad": ("none", "zero", "reflect"),
    "mel_scale": ("htk", "slaney"),
    "mel_norm": ("none", "slaney"),
    "log": ("natural", "log10", "db"),
}
_RANGES: dict[str, tuple[float, float]] = {
    "sample_rate": (1000, 192_000),
    "window": (2, LARGEST_FFT),
    "hop": (1, 65_535),
    "fft": (16, LARGEST_FFT),
    "mels": (1, MOST_FILTERS),
    "fmin": (0, 96_000),
    "fmax": (0, 96_000),
    "floor": (1e-30, 1e10),
    "full_scale": (1e-6, 1e6),
    "pre_emphasis": (0, 0.9999),
    "coefficients": (1, MOST_FILTERS),
    "lifter": (0, 1000),
    "channels": (1, 255),
    "stride": (0, 65_535),
}
_REFUSED = {
    "top_db": "It needs the loudest frame of the whole recording, which a stream does not know: give a `floor`.",
    "power": "Powers of the spectrum are taken (power = 2); magnitudes are not supported.",
}


def load_spec(path: Path | str) -> Spec:
    """Read a description.

    Raises:
        UserError: the file cannot be read, or says what is not possible.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(
            f"Cannot read {path}: {error.strerror}.", "Give a TOML file with --features."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}", "docs/features.md shows one.") from error
    return parse_spec(data, str(path))


def parse_spec(data: Mapping[str, Any], source: str = "the features") -> Spec:
    """A description from its fields. Raises UserError as `load_spec`; `source` is how messages call it."""
    kind = data.get("kind")
    if kind not in KINDS:
        raise UserError(f"{source}: kind is {kind!r}.", f"Use one of {listed(KINDS)}.")
    fields = {name: value for name, value in data.items() if kind != "sensor" or name != "kind"}
    spec_type: type[Spec] = SensorSpec if kind == "sensor" else AudioSpec
    _check_names(source, fields, spec_type)
    values = {name: _checked(source, name, value) for name, value in fields.items()}
    if spec_type is SensorSpec:
        sensor = SensorSpec(**values)
        _check_counts(source, sensor, ("gain", "offset"))
        return sensor
    spec = AudioSpec(
        **{"fft": values.get("window"), "fmin": 0.0, "fmax": values["sample_rate"] / 2, **values}
    )
    _check_audio(source, spec)
    return spec


def _check_names(source: str, fields: Mapping[str, Any], spec_type: type[Spec]) -> None:
    known = {field.name: field for field in dataclasses.fields(spec_type)}
    for name in fields:
        if name in _REFUSED:
            raise UserError(f"{source}: {name} is not supported.", _REFUSED[name])
        if name not in known:
            raise UserError(f"{source} has the unknown field {name}.", suggestion(name, list(known)))
    optional = {"fft", "fmin", "fmax"}
    missing = [
        name
        for name, field in known.items()
        if field.default is dataclasses.MISSING and name not in fields and name not in optional
    ]
    if missing:
        raise UserError(f"{source} lacks {listed(missing)}.", "docs/features.md says what they mean.")


def _checked(source: str, name: str, value: Any) -> Any:
    """A field's value in its type; raises UserError for another type and for what is out of range."""
    if name == "kind":
        return value
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise UserError(f"{source}: {name} is {value!r}.", f"Use one of {listed(_CHOICES[name])}.")
        return value
    if name in ("mean", "std", "gain", "offset"):
        found = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not found or not all(_is_number(item) for item in found):
            raise UserError(f"{source}: {name} is {value!r}.", "Give a number, or a list of numbers.")
        if name in ("std", "gain") and not all(found):
            raise UserError(f"{source}: {name} has a zero.", "Give numbers other than 0.")
        return tuple(float(item) for item in found)
    low, high = _RANGES[name]
    whole = isinstance(low, int) and name not in ("fmin", "fmax", "pre_emphasis", "lifter")
    if not _is_number(value) or (whole and not isinstance(value, int)) or not low <= value <= high:
        what = "whole number" if whole else "number"
        raise UserError(f"{source}: {name} is {value!r}.", f"Give a {what} from {low:g} to {high:g}.")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_counts(source: str, spec: Spec, names: tuple[str, ...]) -> None:
    for name in names:
        count = len(getattr(spec, name))
        if count not in (1, spec.columns):
            raise UserError(
                f"{source}: {name} has {count} numbers, a row has {spec.columns} columns.",
                "Give one number, or one a column.",
            )


_Rule = tuple[Callable[[AudioSpec], bool], str, str]
"""What must not be, and how to say so: formats of the specification's fields."""

_RULES: tuple[_Rule, ...] = (
    (lambda s: bool(s.window % 2), "window is {window}, an odd number.", "Give an even number of samples."),
    (lambda s: s.window > s.fft, "fft is {fft}, less than the window of {window}.", "Give window or more."),
    (
        lambda s: s.fft % 4 != 0,
        "fft is {fft}, no multiple of 4.",
        "Use the next multiple of 4, or power of 2.",
    ),
    (
        lambda s: any(s.fft % prime == 0 for prime in range(7, s.fft + 1) if _is_prime(prime)),
        "fft is {fft}, which has prime factors other than 2, 3 and 5.",
        "Use the next power of 2.",
    ),
    (
        lambda s: s.fmin >= s.fmax,
        "fmin {fmin:g} is not below fmax {fmax:g}.",
        "Leave them out for all frequencies.",
    ),
    (
        lambda s: s.fmax > s.sample_rate / 2,
        "fmax is {fmax:g} Hz, above half the sample rate of {sample_rate} Hz.",
        "Give at most half the sample rate.",
    ),
    (
        lambda s: _above(s) >= s.fmax * (1 - 1e-9),
        "no frequency of the transform lies between fmin {fmin:g} and fmax {fmax:g} Hz.",
        "Give a wider range, or a larger fft.",
    ),
    (
        lambda s: s.kind == "mfcc" and not 1 <= s.coefficients <= s.mels,
        "coefficients is {coefficients} with {mels} mels.",
        "Give 1 to the number of mels.",
    ),
    (
        lambda s: s.kind == "log-mel" and bool(s.coefficients or s.lifter),
        "coefficients and lifter belong to mfcc.",
        'Leave them out, or say kind = "mfcc".',
    ),
    (
        lambda s: s.pre_emphasis > 0 and s.pad != "none",
        "pre_emphasis does not go together with pad = {pad!r}.",
        'Say pad = "none", and train with that.',
    ),
    (
        lambda s: s.pad == "reflect" and s.window_function != "hann",
        "pad = 'reflect' needs a window that begins with 0.",
        'Say window_function = "hann".',
    ),
)


def _above(spec: AudioSpec) -> float:
    """The first frequency of the transform above fmin."""
    return (math.floor(spec.fmin * spec.fft / spec.sample_rate) + 1) * spec.sample_rate / spec.fft


def _is_prime(number: int) -> bool:
    return all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


def _check_audio(source: str, spec: AudioSpec) -> None:
    fields = dataclasses.asdict(spec)
    for wrong, problem, remedy in _RULES:
        if wrong(spec):
            raise UserError(f"{source}: {problem.format(**fields)}", remedy)
    _check_counts(source, spec, ("mean", "std"))
