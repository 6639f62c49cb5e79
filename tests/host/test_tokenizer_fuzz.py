"""The tokenizers' C under libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer.

A short run where clang is installed. A long one: TVMTINY_FUZZ_SECONDS=600 pytest tests/host/test_tokenizer_fuzz.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tokenizer_cases import case

from tvmtiny.codegen.directory import write_files
from tvmtiny.tokenizer.emit import tokenizer_sources
from tvmtiny.tokenizer.spec import parse_spec
from tvmtiny.tokenizer.tables import Tables, build_tables

TARGET = Path(__file__).parents[1] / "fuzz" / "tokenizer.c"
FUZZED = (
    "shipped",
    "wordpiece_uncased",
    "wordpiece_sequence",
    "byte_level",
    "metaspace_never",
    "llama",
    "characters",
)
RUNS = 6_000
SEEDS = (
    b"\x00\x20\x10[CLS]Play some jazz in Z\xc3\xbcrich[SEP]",
    b"\x03\x20\x01don't we'll   they're 42\n\n[SEP]x",
    b"\x04\xff\x03 \xe2\x96\x81a\xf0\x9f\x98\x80\xed\xa0\x80" + b"ab" * 60,
)


def _small_work(tables: Tables) -> Tables:
    """The least work memory: words are released piece by piece."""
    if tables.merges is None or not tables.spec.merges:
        return tables
    return build_tables(tables.spec, word_symbols=tables.merges.longest + 1)


def build(directory: Path) -> Path:
    """The fuzzer with the tokenizers of FUZZED."""
    entries, includes, sources = [], [], set()
    for name in FUZZED:
        tables = _small_work(build_tables(parse_spec(case(name)), max_tokens=200))
        emitted = tokenizer_sources(tables, name)
        write_files(directory, emitted.files)
        sources |= set(emitted.sources)
        includes.append(f'#include "{name}_tokenizer.h"')
        entries.append(
            f"{{&{name}_tokenizer_tables, {name.upper()}_TOKENIZER_WORK, {name.upper()}_TOKENIZER_VOCABULARY}}"
        )
    text = "\n".join([*includes, f"#define FUZZED {', '.join(entries)}", ""])
    (directory / "fuzzed.h").write_text(text)
    sanitizers = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    flags = ["-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", *sanitizers]
    command = ["clang", *flags, "-I.", "-Iinclude", str(TARGET), *sorted(sources), "-o", "fuzzer"]
    finished = subprocess.run(command, cwd=directory, text=True, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return directory / "fuzzer"


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
def test_fuzzing_finds_nothing(tmp_path: Path) -> None:
    fuzzer = build(tmp_path)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for index, seed in enumerate(SEEDS):
        (corpus / str(index)).write_bytes(seed)
    seconds = os.environ.get("TVMTINY_FUZZ_SECONDS")
    limit = [f"-max_total_time={seconds}"] if seconds else [f"-runs={RUNS}", "-seed=1"]
    command = [str(fuzzer), *limit, "-max_len=600", "-timeout=10", str(corpus)]
    finished = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr[-4000:]
