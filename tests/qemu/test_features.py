"""Front ends on emulated cores: the bytes of the NumPy twin, what they cost, and models that take samples."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
from feature_cases import SPECS, signals, spec
from typer.testing import CliRunner

from tvmtiny.artifact import Artifact
from tvmtiny.cli import app
from tvmtiny.compiler import compile as compile_model
from tvmtiny.errors import UserError
from tvmtiny.features.device_run import run_recordings
from tvmtiny.features.firmware import measure
from tvmtiny.features.rows import feature_rows
from tvmtiny.features.spec import parse_spec
from tvmtiny.features.tables import build_tables

pytestmark = pytest.mark.qemu

ROOT = Path(__file__).parents[2]
KEYWORD, MOTION = ROOT / "examples" / "keyword", ROOT / "examples" / "motion"
STRIDE, GAIN = 64, 0.01
SENSOR = f'kind = "sensor"\nchannels = 6\ngain = {GAIN}\nstride = {STRIDE}\n'


@pytest.mark.parametrize("target", ["qemu-m0", "qemu-m4", "qemu-m55"])
@pytest.mark.parametrize("name", ["digits", "keywords", "emphasized", "short"])
def test_a_core_gives_the_bytes_of_the_twin(name: str, target: str) -> None:
    tables = build_tables(spec(name), np.full(spec(name).columns, 0.4), np.full(spec(name).columns, 5))
    recordings = list(signals(2000).values())
    expected = [feature_rows(tables, pcm) for pcm in recordings]
    most = max(map(len, expected)) + 1
    found = measure(tables, recordings, on="qemu", target=target, rows=most, chunk=250)
    for have, want in zip(found.rows, expected, strict=True):
        np.testing.assert_array_equal(have, want)


def test_a_front_end_keeps_its_budget() -> None:
    """Of 40 mels and 10 coefficients: 45,000 instructions a frame on M4, 10 KB of flash, 4 KB of RAM."""
    tables = build_tables(parse_spec(SPECS["keywords"]), np.full(10, 0.4), np.full(10, 5))
    pcm = signals(400 + 9 * 160)["bursts"]
    found = measure(tables, [pcm], on="qemu", target="qemu-m4", rows=10)
    assert found.result.instructions is not None
    assert found.result.instructions < 10 * 45_000
    assert found.result.sizes.code_bytes + found.result.sizes.table_bytes < 10 * 1024
    assert found.state_bytes < 4 * 1024


@pytest.fixture(scope="module")
def keyword(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return compile_model(
        KEYWORD / "model.onnx",
        target="stm32f746",
        calibration=KEYWORD / "calibration.npz",
        labels=KEYWORD / "labels.txt",
        features=KEYWORD / "features.toml",
        output=tmp_path_factory.mktemp("features") / "keyword",
    )


@pytest.fixture(scope="module")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("features")
    (folder / "sensor.toml").write_text(SENSOR)
    return compile_model(
        MOTION / "model.onnx",
        target="stm32f746",
        calibration=MOTION / "calibration.npz",
        labels=MOTION / "labels.txt",
        features=folder / "sensor.toml",
        output=folder / "motion",
    )


def write_wav(path: Path, pcm: np.ndarray, rate: int = 8000, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.astype("<i2").tobytes())
    return path


@pytest.mark.parametrize("on", ["host", "qemu"])
def test_recordings_run_like_their_features(keyword: Artifact, on: str) -> None:
    lengths = (201, 1000, 4321, 7999)
    recordings = [pcm[:count] for count in lengths for pcm in signals(8000).values()]
    done = run_recordings(keyword, recordings, on, timeout_s=60)  # compares the features
    assert {sample.n_tokens for sample in done.samples} == {1, 3, 11, 20}


def test_wav_files_are_classified(keyword: Artifact, tmp_path: Path) -> None:
    files = [write_wav(tmp_path / f"{name}.wav", signals(5000)[name]) for name in ("bursts", "chirp")]
    options = [option for file in files for option in ("--pcm", str(file))]
    result = CliRunner().invoke(app, ["run", str(keyword.directory), *options, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["bit_exact"]
    assert [row["text"] for row in report["rows"]] == ["bursts.wav", "chirp.wav"]


def test_windows_of_raw_samples_are_classified(motion: Artifact, tmp_path: Path) -> None:
    """A recording of three windows; and those of the example, which give what its real values give."""
    window = np.load(MOTION / "sample.npz")["window"]
    raw = np.clip(np.rint(window / GAIN), -32768, 32767).astype(np.int16)
    long = np.concatenate([raw[0], raw[1]])
    done = run_recordings(
        motion, [long[start : start + 128] for start in (0, STRIDE, 2 * STRIDE)], "host", 60
    )
    assert len(done.samples) == 3
    np.savez(tmp_path / "raw.npz", samples=long[None], labels=np.zeros(1, np.int64))
    result = CliRunner().invoke(
        app, ["run", str(motion.directory), "--on", "host", "--input", str(tmp_path / "raw.npz"), "--json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["samples"] == 3


def test_recordings_are_evaluated_with_the_front_end(keyword: Artifact, tmp_path: Path) -> None:
    """On the float side stand the features that the device made."""
    signal = np.stack([signals(5000)[name] for name in ("bursts", "chirp")]).astype(np.int16)
    np.savez(tmp_path / "raw.npz", samples=signal, n_samples=np.array([5000, 2000]), labels=np.array([1, 2]))
    options = ["--data", tmp_path / "raw.npz", "--float", KEYWORD / "model.onnx", "--no-reference", "--json"]
    result = CliRunner().invoke(app, ["evaluate", str(keyword.directory), *map(str, options)])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    (row,) = found["rows"]
    lengths = [
        done.n_tokens for done in run_recordings(keyword, [signal[0], signal[1][:2000]], "host", 60).samples
    ]
    assert (found["tokens"]["p50"], found["tokens"]["p95"]) == tuple(sorted(lengths))
    assert row["instructions"]["p50"] < row["instructions"]["p95"]
    assert row["snr_db"]["logits"] > 10
    about = keyword.metadata["features"]
    assert row["ram_bytes"] == keyword.arena_bytes + about["state_bytes"] + row["stack_bytes"]
    assert about["table_bytes"] < row["front_end_bytes"] < about["table_bytes"] + 8192
    assert row["tokenizer_bytes"] == 0


def test_metadata_describes_the_front_end(keyword: Artifact, motion: Artifact) -> None:
    about = keyword.metadata["features"]
    assert (about["kind"], about["columns"], about["rows"], about["rows_by_token"]) == ("mfcc", 13, 40, 2)
    assert (keyword.directory / about["file"]).is_file()
    assert about["table_bytes"] < 3 * 128 * 13 * 2  # two frames to a token, one table of cosines
    assert motion.metadata["features"]["kind"] == "sensor"
    page = (ROOT / "docs" / "features.md").read_text("utf-8")
    assert not [field for field in about if f"`{field}`" not in page]


def test_recordings_that_cannot_run(keyword: Artifact, motion: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 9000 samples; 7999 are possible"):
        run_recordings(keyword, [np.zeros(9000, np.int16)], "host", timeout_s=60)
    with pytest.raises(UserError, match="with status -8"):
        run_recordings(keyword, [np.zeros(150, np.int16)], "host", timeout_s=60)
    cases = {
        "16000 Hz": [
            str(keyword.directory),
            "--pcm",
            str(write_wav(tmp_path / "a.wav", np.zeros(500), 16000)),
        ],
        "has 2 channels": [
            str(keyword.directory),
            "--pcm",
            str(write_wav(tmp_path / "b.wav", np.zeros(500), 8000, 2)),
        ],
        "samples of a sensor": [str(motion.directory), "--pcm", str(tmp_path / "a.wav")],
        "not a WAV file": [str(keyword.directory), "--pcm", str(KEYWORD / "labels.txt")],
        "stands in place": [
            str(keyword.directory),
            "--pcm",
            str(tmp_path / "a.wav"),
            "--input",
            str(tmp_path / "a.wav"),
        ],
    }
    for message, options in cases.items():
        result = CliRunner().invoke(app, ["run", *options, "--on", "host"])
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
