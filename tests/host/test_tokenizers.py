"""The tokenizers' C on the host: the ids of the tokenizers library, whatever the text and however it comes."""

from __future__ import annotations

import functools
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_cases import CASES, MULTILINGUAL, case, corpus

from tvmtiny.codegen.directory import write_files
from tvmtiny.tokenizer.check import CheckReport, check
from tvmtiny.tokenizer.emit import tokenizer_sources
from tvmtiny.tokenizer.fuzz import fuzz_texts
from tvmtiny.tokenizer.host import ERROR_WORD, HostTokenizer
from tvmtiny.tokenizer.library import LibraryTokenizer
from tvmtiny.tokenizer.spec import parse_spec
from tvmtiny.tokenizer.tables import Tables, build_tables

ERROR_CAPACITY = -2
CAPACITY = 0xFFFF
FUZZED = 400
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wdouble-promotion", "-Wcast-qual", "-pedantic", "-Werror")

LONG_WORDS = [
    b"a" * 99,
    b"a" * 100,
    b"a" * 101,
    "é".encode() * 100,
    ("e\u0301" * 100).encode(),
    "中".encode() * 200,
    b"x" * 5000,
    b"the" * 1000,
    b"\x00" * 300 + b"play",
    b" " * 500,
    b"\n" * 129 + b"a",
    b"'" * 200,
    ("\u0301" * 300).encode(),
]
CORNERS = [
    b"",
    b" ",
    b"\x00",
    b"\xff",
    b"\xe2\x82",
    b"\xe2\x82[CLS]",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc0\xaf",
    b"[CLS][SEP][UNK][PAD]",
    b"[SEP][SEP]x[SEP",
    b"[[SEP]",
    b"[cls]",
    b" [SEP] a",
    b"don't I'll they're we've 'tis ''s 's'",
    b"a'r b'v c'l d're'l",
    b"a  b \t\n c\r\n\r\n  ",
    "\u00a0a\u3000b\u2003\u2028c".encode(),
    "▁a ▁▁b".encode(),
    "a\u0300\u0323 \u1e69 \u212b \u2126 \uac01 \ufb01".encode(),
    "\u0130\u0131\u1e9e\u01c5\u03c2\u03a3".encode(),
    "\ufeff\u200bplay\u00adsome\ufffd".encode(),
]


@functools.cache
def tables(name: str) -> Tables:
    return build_tables(parse_spec(case(name)))


@functools.cache
def device(name: str) -> HostTokenizer:
    return HostTokenizer(tables(name))


@functools.cache
def library(name: str) -> LibraryTokenizer:
    return LibraryTokenizer(case(name), tables(name))


def assert_equal(report: CheckReport) -> None:
    assert report.different == 0, report.examples[0]


@pytest.mark.parametrize("name", CASES)
def test_texts_and_random_texts(name: str) -> None:
    written = [text.encode() for text in (*corpus(), *MULTILINGUAL)]
    fuzzed = fuzz_texts(tables(name).spec, FUZZED, seed=1)
    report = check(case(name), tables(name), [*written, *CORNERS, *LONG_WORDS, *fuzzed], flags=WARNINGS)
    assert_equal(report)
    assert report.refused == 0
    assert report.equal == report.texts


@pytest.mark.parametrize("name", CASES)
@given(text=st.text(max_size=60), parts=st.integers(1, 7))
def test_any_text(name: str, text: str, parts: int) -> None:
    data = text.encode("utf-8", "surrogatepass")
    pieces = [data[i : i + parts] for i in range(0, len(data), parts)]
    assert device(name).encode(pieces, CAPACITY) == library(name).encode([data])[0]


@given(data=st.binary(max_size=40))
def test_any_bytes(data: bytes) -> None:
    expected = library("bytes").encode([data])[0]
    assert device("bytes").encode([data[i : i + 1] for i in range(len(data))], CAPACITY) == expected


@pytest.mark.parametrize("capacity", range(2, 12))
def test_truncation_keeps_what_stands_around_the_text(capacity: int) -> None:
    cut = build_tables(parse_spec(case("shipped")), max_tokens=capacity)
    expected = LibraryTokenizer(case("shipped"), cut).encode([b"play unheardofxyz\xe4\xb8\xad jazz", b""])
    for text, ids in zip([b"play unheardofxyz\xe4\xb8\xad jazz", b""], expected, strict=True):
        assert HostTokenizer(cut).encode([text], CAPACITY) == ids
        assert device("shipped").encode([text], capacity) == ids


def test_an_unknown_word_after_the_cut_is_taken_back() -> None:
    """Pieces of a word that later turns out unknown are one token, also where the cut lies between them."""
    text = "playlistplaylist中x".replace("中", "ж").encode()
    for capacity in range(2, 8):
        cut = build_tables(parse_spec(case("shipped")), max_tokens=capacity)
        assert (
            device("shipped").encode([text], capacity)
            == LibraryTokenizer(case("shipped"), cut).encode([text])[0]
        )


def test_no_room_is_an_error() -> None:
    assert device("shipped").encode([b"a"], 1) == ERROR_CAPACITY
    assert device("shipped").encode([b"a"], 0) == ERROR_CAPACITY
    assert device("shipped").encode([b"a"], -5) == ERROR_CAPACITY
    assert device("bytes").encode([b"a"], 0) == []


@pytest.mark.parametrize("name", ["byte_level_whole", "llama"])
def test_words_longer_than_work_memory_are_exact_or_refused(name: str) -> None:
    spec = parse_spec(case(name))
    longest = build_tables(spec).merges.longest  # type: ignore[union-attr]
    texts = [*LONG_WORDS, *fuzz_texts(spec, 300, seed=5), *(b" ".join(LONG_WORDS[:3] * 4),)]
    for size in (longest + 1, 2 * longest, 3 * longest):
        report = check(case(name), build_tables(spec, word_symbols=size), texts)
        assert_equal(report)
    assert report.refused == 0


def test_what_cannot_be_told_is_refused() -> None:
    """Neighbours in the alphabet pair from the end of a word: its first token depends on its last letter."""
    letters = "abcdefghijklmnop"
    merges = [[left, right] for left, right in reversed(list(pairwise(letters)))]
    vocabulary = {piece: index for index, piece in enumerate([*letters, *map("".join, merges)])}
    model = {"type": "BPE", "unk_token": None, "vocab": vocabulary, "merges": merges}
    data = {"pre_tokenizer": None, "normalizer": None, "added_tokens": [], "model": model}
    spec = parse_spec(data)
    words = [letters[:count].encode() for count in (7, 8, 15, 16)]
    found = HostTokenizer(build_tables(spec, word_symbols=6))
    assert [found.encode([word], CAPACITY) for word in words] == [ERROR_WORD] * 4
    report = check(data, build_tables(spec, word_symbols=16), words)
    assert (report.equal, report.texts) == (4, 4)


@pytest.mark.parametrize(
    ("compiler", "standard"), [("gcc", "c11"), ("clang", "c11"), ("g++", "c++17"), ("clang++", "c++17")]
)
@pytest.mark.parametrize("name", ["shipped", "byte_level", "metaspace_never", "characters"])
def test_compiles_without_a_warning(name: str, compiler: str, standard: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    emitted = tokenizer_sources(tables(name), "sample")
    write_files(tmp_path, emitted.files)
    language = "c++" if "+" in standard else "c"
    for source in emitted.sources:
        command = [compiler, f"-std={standard}", "-O2", *WARNINGS, "-I.", "-Iinclude", "-x", language]
        finished = subprocess.run(
            [*command, "-c", source, "-o", "object.o"],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            check=False,
        )
        assert (finished.returncode, finished.stderr) == (0, "")


def test_a_kind_that_is_not_used_is_not_emitted() -> None:
    assert set(tables("shipped").sources) == {
        "tvmt_tokenizer.c",
        "tvmt_tokenizer_words.c",
        "tvmt_tokenizer_wordpiece.c",
    }
    assert "tvmt_tokenizer_bpe.c" not in tables("bytes").sources
