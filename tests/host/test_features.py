"""The front ends' C on the host: the bytes of the NumPy twin, however samples come, under sanitizers too."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from feature_cases import SPECS, audio_specs, signals, spec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tvmtiny.codegen.directory import write_files
from tvmtiny.features.emit import Window, feature_sources
from tvmtiny.features.firmware import measure
from tvmtiny.features.rows import feature_rows, last_rows
from tvmtiny.features.spec import Spec, parse_spec
from tvmtiny.features.tables import Tables, build_tables

WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wdouble-promotion", "-Wcast-qual", "-pedantic", "-Werror")
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
COMPILERS = [name for name in ("gcc", "clang", "g++") if shutil.which(name)]
SENSOR = {"kind": "sensor", "channels": 3, "gain": [0.01, -0.5, 2.0], "offset": [0.0, 100.0, -7.5]}


def tables_of(description: Spec, phases: int = 1, *, shared: bool = False) -> Tables:
    """Tables for an input that features of ordinary levels fill; `shared`: all phases have the same scales."""
    columns = np.arange(description.columns * phases)
    columns = columns % description.columns if shared else columns
    return build_tables(description, 0.3 + 0.05 * columns, columns % 50 - 20)


@pytest.mark.parametrize("name", SPECS)
def test_samples_may_come_in_any_pieces(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANITIZE", SANITIZERS)
    tables = tables_of(spec(name))
    recordings = list(signals(4500).values())
    expected = [feature_rows(tables, pcm) for pcm in recordings]
    most = max(map(len, expected)) + 1
    for chunk in (1, 1 << 30):
        found = measure(
            tables, recordings, on="host", target="qemu-m4", rows=most, chunk=chunk, directory=tmp_path / "c"
        )
        assert not any(found.status)
        for have, want in zip(found.rows, expected, strict=True):
            np.testing.assert_array_equal(have, want)


@given(audio_specs(), st.integers(0, 2**32 - 1), st.integers(1, 2), st.booleans(), st.integers(1, 600))
@settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_description_gives_the_bytes_of_the_twin(
    monkeypatch: pytest.MonkeyPatch, description: Spec, seed: int, phases: int, shared: bool, chunk: int
) -> None:
    monkeypatch.setenv("SANITIZE", SANITIZERS)
    tables = tables_of(description, phases, shared=shared)
    random = np.random.default_rng(seed)
    recordings = [
        random.integers(-limit, limit, random.integers(600, 3000)).astype(np.int16)
        for limit in (3, 800, 32768)
    ] + [np.where(random.random(2000) < 0.5, -32768, 32767).astype(np.int16)]
    most = 8 * phases
    found = measure(tables, recordings, on="host", target="qemu-m4", rows=most, chunk=chunk)
    assert not any(found.status)
    for have, pcm in zip(found.rows, recordings, strict=True):
        np.testing.assert_array_equal(have, last_rows(feature_rows(tables, pcm), most, phases))


def test_recordings_too_short_to_be_mirrored_are_refused() -> None:
    tables = tables_of(spec("digits"))
    short, enough = np.zeros(200, np.int16), np.zeros(201, np.int16)
    found = measure(tables, [short, enough], on="host", target="qemu-m4", rows=8)
    assert found.status == [-2, 0]
    assert len(found.rows[1]) == 2


@pytest.mark.parametrize(("phases", "shared"), [(1, True), (4, False), (4, True)])
def test_raw_samples_give_the_bytes_of_the_twin(
    phases: int, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANITIZE", SANITIZERS)
    tables = tables_of(parse_spec(SENSOR), phases, shared=shared)
    raw = np.random.default_rng(0).integers(-32768, 32768, (50, 3)).astype(np.int16)
    for chunk in (1, 9, 64):
        found = measure(tables, [raw], on="host", target="qemu-m4", rows=16, chunk=chunk)
        np.testing.assert_array_equal(found.rows[0], last_rows(feature_rows(tables, raw), 16, phases))


WINDOWS = r"""
#include <stdio.h>
#include "w_features.h"
int main(void) {
  static w_features state;
  int16_t raw[3 * 40];
  int8_t input[W_FEATURES_ROWS * W_FEATURES_COLUMNS];
  for (int i = 0; i < 3 * 40; i++) raw[i] = (int16_t)(i / 3);
  w_features_init(&state);
  for (size_t at = 0, taken; at < 40; at += taken) {
    taken = w_features_push(&state, &raw[3 * at], at + 7 < 40 ? 7 : 40 - at);
    if (w_features_ready(&state)) {
      int n = (int)w_features_copy(&state, input);
      printf("%d %d %d\n", n, input[0], input[sizeof input - 3]);
    }
  }
  return 0;
}
"""


@pytest.mark.parametrize("compiler", COMPILERS)
def test_windows_overlap(compiler: str, tmp_path: Path) -> None:
    """Of 40 samples, windows of 12 every 8: what begins with samples 0, 8, 16 and 24."""
    description = parse_spec({"kind": "sensor", "channels": 3, "gain": 1.0})
    emitted = feature_sources(
        build_tables(description, [1.0] * 6, [0] * 6), Window(12, 2, 8), "w", "portable"
    )
    write_files(tmp_path, {**emitted.files, "main.c": WINDOWS})
    language = ["-x", "c++", "-std=c++17"] if compiler == "g++" else ["-std=c11"]
    sources = [str(tmp_path / source) for source in ("main.c", *emitted.sources)]
    command = [compiler, *language, *WARNINGS, f"-I{tmp_path}", f"-I{tmp_path}/include", *sources]
    subprocess.run([*command, "-o", str(tmp_path / "main")], check=True)
    said = subprocess.run([tmp_path / "main"], check=True, text=True, capture_output=True).stdout
    assert said.splitlines() == [f"6 {start} {start + 11}" for start in (0, 8, 16, 24)]


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_c_compiles_without_warnings(name: str, compiler: str, tmp_path: Path) -> None:
    emitted = feature_sources(tables_of(spec(name)), Window(8, 1, 8), "w", "dsp")
    write_files(tmp_path, emitted.files)
    language = ["-x", "c++", "-std=c++17"] if compiler == "g++" else ["-std=c11"]
    command = [compiler, *language, *WARNINGS, "-Iinclude", "-fsyntax-only", *emitted.sources]
    subprocess.run(command, check=True, cwd=tmp_path)


def test_only_what_is_needed_is_written() -> None:
    files = feature_sources(tables_of(spec("keywords")), Window(8, 1, 8), "w", "dsp").sources
    assert [file for file in files if "fft" in file] == ["tvmt_fft_radix4.c"]
    assert "tvmt_scale_sums.c" in files
    assert "tvmt_scale_each.c" not in files
