"""The Fourier transform of tvmt_fft.h and tvmt_audio_power.c, bit for bit, for many frames at once."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]
Complex = tuple[Array, Array]
"""Real and imaginary parts."""

UNIT = 2**31
_HEADROOM = 2**-10
"""Rounding lets values grow by less than this share of them."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of the transform: `radix` blocks of `m` points become one.

    Attributes:
        cosine, sine: of the twiddle factors' angles, (m, radix), in units of 2**-31; first row and column are not used.
    """

    radix: int
    m: int
    cosine: Array
    sine: Array


@dataclasses.dataclass(frozen=True)
class Transform:
    """The tables of a transform of `length` real samples.

    Attributes:
        stages: of the half as many complex points.
        order: (length / 2,) where each pair of samples goes.
        cosine, sine: (length / 4 + 1,) of 2 pi k / length, in units of 2**-31.
        peak_bits: bits of the largest sample that no stage can make too large.
    """

    length: int
    stages: tuple[Stage, ...]
    order: Array
    cosine: Array
    sine: Array
    peak_bits: int

    @property
    def halvings(self) -> int:
        """Bits by which results are smaller than the transform's definition has them."""
        return len(self.stages) - 1


def build_transform(length: int) -> Transform:
    """The tables for `length` samples: a multiple of 4 without prime factors above 5."""
    radices = _radices(length // 2)
    stages, m = [], 1
    for radix in radices:
        angles = np.outer(np.arange(m), np.arange(radix)) / (radix * m)
        stages.append(Stage(radix, m, *_turns(angles)))
        m *= radix
    order = np.empty(length // 2, np.int64)
    order[_positions(np.arange(length // 2), radices)] = np.arange(length // 2)
    # Points are complex, so sqrt(2) larger than a sample; a stage of radix r multiplies by r / 2 at most, the first by
    # r; 2**30 is what the split into frequencies can take.
    growth = 2 * math.prod(radix / 2 for radix in radices) * math.sqrt(2) * (1 + _HEADROOM)
    turns = _turns(np.arange(length // 4 + 1) / length)
    return Transform(length, tuple(stages), order, *turns, math.floor(30 - math.log2(growth)))


def _turns(angles: npt.NDArray[np.float64]) -> Complex:
    """Cosine and sine, in units of 2**-31, saturated; of parts of the full circle."""
    cosine, sine = (np.rint(UNIT * function(2 * np.pi * angles)) for function in (np.cos, np.sin))
    return np.minimum(cosine, UNIT - 1).astype(np.int64), np.minimum(sine, UNIT - 1).astype(np.int64)


def _radices(points: int) -> list[int]:
    """Odd factors first: the first stage has no twiddle factors, where they cost most."""
    found = []
    for radix in (5, 3, 4, 2):
        while points % radix == 0:
            found.append(radix)
            points //= radix
    assert points == 1
    return sorted(found, key=lambda radix: (radix % 2 == 0, radix if radix % 2 == 0 else -radix))


def _positions(samples: Array, radices: list[int]) -> Array:
    """The samples in the order in which stages of these radices take them."""
    if not radices:
        return samples
    last = radices[-1]
    return np.concatenate([_positions(samples[q::last], radices[:-1]) for q in range(last)])


def multiply_high(a: Array | int, b: Array | int) -> Array:
    """tvmt_multiply_high: (a b + 2**31) >> 32."""
    return (np.asarray(a, np.int64) * np.asarray(b, np.int64) + 2**31) >> 32


def powers(transform: Transform, re: Array, im: Array) -> npt.NDArray[np.uint64]:
    """Powers of all frequencies.

    Args:
        re, im: (frames, length / 2), the even and the odd samples, within `peak_bits`.

    Returns:
        (frames, length / 2 + 1).
    """
    points = transform.length // 2
    z = (np.empty_like(re), np.empty_like(im))
    for part, samples in zip(z, (re, im), strict=True):
        part[:, transform.order] = samples
    for stage in transform.stages:
        z = _run_stage(stage, z)
    return _split(transform, points, z)


def _run_stage(stage: Stage, z: Complex) -> Complex:
    shape = (len(z[0]), -1, stage.radix, stage.m)
    re, im = (part.reshape(shape) for part in z)
    inputs = [_input(stage, q, re[:, :, q], im[:, :, q]) for q in range(stage.radix)]
    outputs = _BUTTERFLIES[stage.radix](inputs)
    parts = [np.stack([output[part] for output in outputs], axis=2) for part in (0, 1)]
    return parts[0].reshape(z[0].shape), parts[1].reshape(z[1].shape)


def _input(stage: Stage, q: int, re: Array, im: Array) -> Complex:
    """Input q of the butterflies: halved but in the first stage, and turned where there is an angle."""
    cosine, sine = stage.cosine[:, q], stage.sine[:, q]
    turned_re = multiply_high(im, sine) + multiply_high(re, cosine)
    turned_im = multiply_high(im, cosine) + multiply_high(-re, sine)
    if stage.m == 1:
        return re, im
    straight = np.arange(stage.m) == 0
    return (
        np.where(straight, _half_even(re), turned_re if q else re >> 1),
        np.where(straight, _half_even(im), turned_im if q else im >> 1),
    )


def _half_even(a: Array) -> Array:
    return (a + ((a >> 1) & 1)) >> 1


def _add(a: Complex, b: Complex, sign: int = 1) -> Complex:
    return a[0] + sign * b[0], a[1] + sign * b[1]


def _add_turned(a: Complex, b: Complex, sign: int = 1) -> Complex:
    """a + sign i b."""
    return a[0] - sign * b[1], a[1] + sign * b[0]


def _scale(a: Complex, real: float) -> Complex:
    factor = round(real * UNIT)
    return multiply_high(2 * a[0], factor), multiply_high(2 * a[1], factor)


def _radix2(x: list[Complex]) -> list[Complex]:
    return [_add(x[0], x[1]), _add(x[0], x[1], -1)]


def _radix3(x: list[Complex]) -> list[Complex]:
    total = _add(x[1], x[2])
    middle = _add(x[0], (total[0] >> 1, total[1] >> 1), -1)
    side = _scale(_add(x[1], x[2], -1), math.sin(math.pi / 3))
    return [_add(x[0], total), _add_turned(middle, side, -1), _add_turned(middle, side)]


def _radix4(x: list[Complex]) -> list[Complex]:
    total, difference = _add(x[0], x[2]), _add(x[0], x[2], -1)
    odd, side = _add(x[1], x[3]), _add(x[1], x[3], -1)
    return [
        _add(total, odd),
        _add_turned(difference, side, -1),
        _add(total, odd, -1),
        _add_turned(difference, side),
    ]


def _radix5(x: list[Complex]) -> list[Complex]:
    cosine = [math.cos(2 * math.pi * k / 5) for k in (1, 2)]
    sine = [math.sin(2 * math.pi * k / 5) for k in (1, 2)]
    outer, inner = _add(x[1], x[4]), _add(x[2], x[3])
    outer_side, inner_side = _add(x[1], x[4], -1), _add(x[2], x[3], -1)
    middle = [_add(x[0], _add(_scale(outer, cosine[k]), _scale(inner, cosine[1 - k]))) for k in (0, 1)]
    side_1 = _add(_scale(outer_side, sine[0]), _scale(inner_side, sine[1]))
    side_2 = _add(_scale(outer_side, sine[1]), _scale(inner_side, -sine[0]))
    return [
        _add(x[0], _add(outer, inner)),
        _add_turned(middle[0], side_1, -1),
        _add_turned(middle[1], side_2, -1),
        _add_turned(middle[1], side_2),
        _add_turned(middle[0], side_1),
    ]


_BUTTERFLIES = {2: _radix2, 3: _radix3, 4: _radix4, 5: _radix5}


def _split(transform: Transform, points: int, z: Complex) -> npt.NDArray[np.uint64]:
    """The transform of real samples from that of their pairs, squared: tvmt_audio_power.c."""
    found = np.empty((len(z[0]), points + 1), np.uint64)
    found[:, 0] = _power(z[0][:, 0] + z[1][:, 0], np.int64(0))
    found[:, points] = _power(z[0][:, 0] - z[1][:, 0], np.int64(0))
    k = np.arange(1, points // 2 + 1)
    (a_re, b_re), (a_im, b_im) = ((part[:, k], part[:, points - k]) for part in z)
    sine, cosine = transform.sine[k], transform.cosine[k]
    even_re, even_im = (a_re + b_re) >> 1, (a_im - b_im) >> 1
    re, im = a_re - b_re, a_im + b_im
    odd_re = multiply_high(-re, sine) + multiply_high(im, cosine)
    odd_im = multiply_high(im, sine) + multiply_high(re, cosine)
    found[:, k] = _power(even_re + odd_re, even_im - odd_im)
    found[:, points - k] = _power(even_re - odd_re, even_im + odd_im)
    return found


def _power(re: Array, im: Array | np.int64) -> npt.NDArray[np.uint64]:
    return np.asarray(re * re + im * im).astype(np.uint64)
