"""Front ends in NumPy: the float reference beside transformers and SciPy, the integers beside the reference."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
from feature_cases import SPECS, audio_specs, signals, spec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tvmtiny.errors import UserError
from tvmtiny.features.audio import audio_rows, log2_q16
from tvmtiny.features.recordings import has_samples, read_recordings, read_wav
from tvmtiny.features.reference import (
    cepstral_transform,
    filter_gains,
    mel_filters,
    reference_rows,
    window_weights,
)
from tvmtiny.features.rows import last_rows
from tvmtiny.features.sensor import sensor_rows
from tvmtiny.features.spec import AudioSpec, SensorSpec, load_spec, parse_spec
from tvmtiny.features.tables import AudioTables, SensorTables, build_tables
from tvmtiny.features.transform import build_transform, powers


def tables_for(description: AudioSpec, values: np.ndarray) -> tuple[AudioTables, np.ndarray, np.ndarray]:
    """Tables for an input of the range of these real values, with its scale and zero point a column."""
    low, high = values.min(axis=0), values.max(axis=0)
    scale = np.maximum(high - low, 1e-3) / 255
    zero_point = np.rint(-128 - low / scale).astype(np.int64)
    tables = build_tables(description, scale, zero_point)
    assert isinstance(tables, AudioTables)
    return tables, scale, zero_point


@pytest.mark.parametrize("name", SPECS)
def test_the_reference_is_what_transformers_computes(name: str) -> None:
    audio_utils = pytest.importorskip("transformers.audio_utils")
    description = spec(name)
    assert isinstance(description, AudioSpec)
    scale = {"htk": "htk", "slaney": "slaney"}[description.mel_scale]
    filters = audio_utils.mel_filter_bank(
        *(
            description.fft // 2 + 1,
            description.mels,
            description.fmin,
            description.fmax,
            description.sample_rate,
        ),
        norm=None if description.mel_norm == "none" else "slaney",
        mel_scale=scale,
    )
    np.testing.assert_allclose(mel_filters(description).T, filters, atol=1e-9)
    pcm = signals(6000)["bursts"] / 32768 * description.full_scale
    emphasized = np.append(pcm[:1], pcm[1:] - description.pre_emphasis * pcm[:-1])
    padded = {"none": None, "zero": "constant", "reflect": "reflect"}[description.pad]
    window = audio_utils.window_function(description.window, description.window_function)
    logs = audio_utils.spectrogram(
        np.pad(emphasized, description.window // 2, mode=padded) if padded else emphasized,
        window,
        frame_length=description.window,
        hop_length=description.hop,
        fft_length=description.fft,
        power=2.0,
        center=False,
        mel_filters=filters,
        mel_floor=description.floor,
        log_mel={"natural": "log", "log10": "log10", "db": "dB"}[description.log],
        min_value=description.floor,
        dtype=np.float64,
    ).T
    if description.kind == "mfcc":
        logs = scipy.fft.dct(logs, norm="ortho")[:, : description.coefficients]
        if description.lifter:
            order = np.arange(description.coefficients)
            logs *= 1 + np.sin(np.pi * (order + 1) / description.lifter) * description.lifter / 2
    np.testing.assert_allclose(
        reference_rows(description, signals(6000)["bursts"]), logs, rtol=1e-6, atol=1e-6
    )


def test_the_window_is_scipys() -> None:
    import scipy.signal

    for name in ("digits", "emphasized"):
        description = spec(name)
        assert isinstance(description, AudioSpec)
        expected = scipy.signal.get_window(description.window_function, description.window)
        np.testing.assert_allclose(window_weights(description), expected, atol=1e-12)


@pytest.mark.parametrize("name", SPECS)
def test_integers_are_within_one_of_the_reference(name: str) -> None:
    description = spec(name)
    assert isinstance(description, AudioSpec)
    recordings = signals(6000)
    real = {key: reference_rows(description, pcm) for key, pcm in recordings.items()}
    tables, scale, zero_point = tables_for(description, np.concatenate(list(real.values())))
    for key, pcm in recordings.items():
        expected = np.clip(real[key] / scale + zero_point, -128, 127)
        found = audio_rows(tables, pcm)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 1, key


@given(audio_specs(), st.integers(0, 2**32 - 1), st.integers(0, 15))
@settings(max_examples=60, deadline=None)
def test_any_description_is_within_one_of_the_reference(description: AudioSpec, seed: int, bits: int) -> None:
    # A filter that touches no frequency but with its tip has weights that 16 bits cannot tell.
    heights = mel_filters(description).max(axis=1) / filter_gains(description)
    assume(np.all((heights == 0) | (heights > 2e-3)))
    random = np.random.default_rng(seed)
    pcm = random.integers(-(1 << bits), 1 << bits, description.fft + 3 * description.hop).astype(np.int16)
    real = reference_rows(description, pcm)
    tables, scale, zero_point = tables_for(description, np.concatenate([real, real + 10]))
    expected = np.clip(real / scale + zero_point, -128, 127)
    assert np.abs(audio_rows(tables, pcm) - expected).max(initial=0) < 1


@given(
    st.sampled_from([16, 20, 24, 36, 48, 60, 100, 128, 400, 480, 512, 1200, 2048]), st.integers(0, 2**32 - 1)
)
@settings(max_examples=40, deadline=None)
def test_the_transform_is_numpys(length: int, seed: int) -> None:
    transform = build_transform(length)
    random = np.random.default_rng(seed)
    limit = 2**transform.peak_bits - 1
    samples = random.integers(-limit, limit + 1, (2, length))
    samples[0] = limit * np.sign(np.sin(np.arange(length) + seed))  # as large as may be
    found = powers(transform, samples[:, 0::2], samples[:, 1::2])
    expected = np.abs(np.fft.rfft(samples / 2**transform.halvings)) ** 2
    assert found.max() < 2**62
    assert np.abs(np.sqrt(found.astype(float)) - np.sqrt(expected)).max() < 16


def test_log2_is_close_to_the_real_one() -> None:
    values = (
        np.random.default_rng(0).integers(1, 2**63, 5000, np.uint64) >> np.arange(5000, dtype=np.uint64) % 60
    )
    values = np.append(np.maximum(values, 1), np.asarray([1, 2, 2**63, 2**64 - 1], np.uint64))
    error = log2_q16(values) / 65536 - np.log2(values.astype(float))
    assert error.min() > -2e-4
    assert error.max() < 3e-5


def test_the_cepstral_transform_is_orthonormal() -> None:
    description = parse_spec({**SPECS["short"], "lifter": 0})
    assert isinstance(description, AudioSpec)
    matrix = cepstral_transform(description)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(20), atol=1e-12)


def test_normalisation_is_folded_in() -> None:
    plain, pcm = spec("keywords"), signals(4000)["bursts"]
    mean, std = np.arange(10) * 0.5, 1 + np.arange(10) / 7
    normal = parse_spec({**SPECS["keywords"], "mean": mean.tolist(), "std": std.tolist()})
    np.testing.assert_allclose(reference_rows(normal, pcm), (reference_rows(plain, pcm) - mean) / std)
    assert isinstance(normal, AudioSpec)
    real = reference_rows(normal, pcm)
    tables, scale, zero_point = tables_for(normal, real)
    assert np.abs(audio_rows(tables, pcm) - (real / scale + zero_point)).max() < 1


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_sensor_rows_are_within_one_of_the_reference(seed: int, group: int) -> None:
    random = np.random.default_rng(seed)
    description = parse_spec(
        {
            "kind": "sensor",
            "channels": 3,
            "gain": (random.choice([-1, 1], 3) * 10 ** random.uniform(-4, 2, 3)).tolist(),
            "offset": random.uniform(-1000, 1000, 3).tolist(),
        }
    )
    assert isinstance(description, SensorSpec)
    raw = random.integers(-32768, 32768, (12, 3)).astype(np.int16)
    scale = np.tile(np.abs(description.gain), group) * 10 ** random.uniform(0, 3, 3 * group)
    zero_point = random.integers(-128, 128, 3 * group)
    tables = build_tables(description, scale, zero_point)
    assert isinstance(tables, SensorTables)
    real = reference_rows(description, raw).reshape(-1, 3 * group)
    expected = np.clip(real / scale + zero_point, -128, 127).reshape(-1, 3)
    assert np.abs(sensor_rows(tables, raw) - expected).max() < 1


@pytest.mark.parametrize(
    ("count", "most", "group", "kept"),
    [
        (5, 8, 1, range(5)),
        (9, 8, 1, range(1, 9)),
        (5, 8, 2, range(4)),
        (9, 8, 2, range(2, 8)),
        (10, 8, 2, range(2, 10)),
    ],
)
def test_the_last_rows_are_whole_tokens(count: int, most: int, group: int, kept: range) -> None:
    rows = np.arange(count, dtype=np.int8)[:, None]
    assert last_rows(rows, most, group)[:, 0].tolist() == list(kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "plp"}, "kind is 'plp'"),
        ({"top_db": 80}, "top_db is not supported"),
        ({"power": 1}, "power is not supported"),
        ({"mel": 40}, "unknown field mel"),
        ({"window": 401}, "an odd number"),
        ({"window": 600}, "less than the window of 600"),
        ({"fft": 2050}, "from 16 to 2048"),
        ({"fft": 448}, "prime factors other than 2, 3 and 5"),
        ({"fft": 450}, "no multiple of 4"),
        ({"fmin": 9000}, "fmin 9000 is not below fmax"),
        ({"fmin": 1001, "fmax": 1010}, "no frequency of the transform lies between fmin 1001 and fmax 1010"),
        ({"fmax": 9000}, "above half the sample rate"),
        ({"coefficients": 41}, "coefficients is 41 with 40 mels"),
        ({"kind": "log-mel"}, "belong to mfcc"),
        ({"pre_emphasis": 0.9, "pad": "zero"}, "pre_emphasis does not go together"),
        ({"pad": "reflect", "window_function": "hamming"}, "begins with 0"),
        ({"pad": "edge"}, "pad is 'edge'"),
        ({"hop": 0}, "hop is 0"),
        ({"hop": 1.5}, "hop is 1.5"),
        ({"hop": True}, "hop is True"),
        ({"floor": float("nan")}, "floor is nan"),
        ({"mean": [1.0, 2.0]}, "mean has 2 numbers, a row has 10"),
        ({"std": 0}, "std has a zero"),
        ({"std": "wide"}, "std is 'wide'"),
    ],
)
def test_what_is_not_possible_is_said(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_spec({**SPECS["keywords"], **change})


def test_missing_fields_are_named() -> None:
    with pytest.raises(UserError, match="lacks 'window', 'hop'"):
        parse_spec({"kind": "log-mel", "sample_rate": 8000, "mels": 20})
    with pytest.raises(UserError, match="lacks 'channels', 'gain'"):
        parse_spec({"kind": "sensor"})


def test_files_that_are_no_description(tmp_path: Any) -> None:
    with pytest.raises(UserError, match="Cannot read"):
        load_spec(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_bytes(b"kind = \xff")
    with pytest.raises(UserError, match="is not TOML"):
        load_spec(tmp_path / "bad.toml")


@pytest.mark.parametrize("phases", [2, 3])
def test_frames_of_a_token_with_the_same_scales_share_their_factors(phases: int) -> None:
    scale, zero_point = 0.3 + 0.05 * np.arange(13), np.arange(13) - 5
    one = build_tables(spec("digits"), scale, zero_point)
    shared = build_tables(spec("digits"), np.tile(scale, phases), np.tile(zero_point, phases))
    apart = build_tables(spec("digits"), np.repeat(scale, phases), np.repeat(zero_point, phases))
    assert (shared.bytes, shared.scale.phases) == (one.bytes, phases)
    assert apart.bytes == one.bytes + (phases - 1) * one.scale.bytes
    pcm = signals(4000)["bursts"]
    assert isinstance(one, AudioTables)
    assert isinstance(shared, AudioTables)
    np.testing.assert_array_equal(audio_rows(shared, pcm), audio_rows(one, pcm))


def test_scales_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="differ by orders of magnitude"):
        build_tables(spec("keywords"), np.full(10, 1e-30), np.zeros(10))


def test_recordings_too_short_to_be_mirrored() -> None:
    tables = build_tables(spec("digits"), np.ones(13), np.zeros(13))
    assert isinstance(tables, AudioTables)
    with pytest.raises(UserError, match="needs 201"):
        audio_rows(tables, np.zeros(200, np.int16))
    assert len(audio_rows(tables, np.zeros(201, np.int16))) == 2


@pytest.mark.parametrize(
    "arrays",
    [
        {"samples": np.zeros(8, np.int16)},
        {"samples": np.zeros((2, 8), np.int16), "n_samples": np.array([8, np.nan])},
        {"samples": np.zeros((2, 8), np.int16), "n_samples": np.array(["8", "8"])},
        {"other": np.zeros(8, np.int16)},
    ],
)
def test_recordings_of_another_form_are_refused(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "recordings.npz", **arrays)
    with pytest.raises(UserError):
        read_recordings(tmp_path / "recordings.npz", 1)


@pytest.mark.parametrize("kept", [0, 60, -30])
def test_damaged_recordings_are_refused(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "recordings.npz"
    np.savez(path, samples=np.zeros((2, 8), np.int16))
    path.write_bytes(path.read_bytes()[:kept])
    assert not has_samples(path)
    with pytest.raises(UserError, match="is damaged"):
        read_recordings(path, 1)


def test_one_array_is_no_file_of_recordings(tmp_path: Path) -> None:
    np.save(tmp_path / "samples.npy", np.zeros((2, 8), np.int16))
    assert not has_samples(tmp_path / "samples.npy")
    with pytest.raises(UserError, match="is one array"):
        read_recordings(tmp_path / "samples.npy", 1)


def test_a_wav_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(40))
    assert len(read_wav(path, 8000).samples) == 20
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="in the middle of a sample"):
        read_wav(path, 8000)
