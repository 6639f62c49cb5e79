"""Normalizers, pre-tokenizers and models in random combinations: the library's ids, or a refusal."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tokenizer_cases import MARK, case

from tvmtiny.errors import UserError
from tvmtiny.tokenizer.check import check
from tvmtiny.tokenizer.fuzz import fuzz_texts
from tvmtiny.tokenizer.spec import parse_spec
from tvmtiny.tokenizer.tables import Tables, build_tables

MODELS = ("wordpiece_uncased", "wordpiece_cased", "metaspace", "metaspace_never", "byte_level", "characters")


def replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


STEPS = (
    {"type": "NFD"},
    {"type": "StripAccents"},
    {"type": "Lowercase"},
    replace(" ", MARK),
    replace("e", "é"),
    replace("x", ""),
    replace("a", "!"),
    replace("€", "b"),
    replace("中", "ß"),
)


def normalizer(draw: random.Random) -> dict[str, Any] | None:
    flags = ("clean_text", "handle_chinese_chars", "lowercase")
    bert = {"type": "BertNormalizer", "strip_accents": draw.choice((None, True, False))}
    bert |= {flag: draw.random() < 0.5 for flag in flags}
    steps = draw.sample([*STEPS, bert], draw.randint(1, 4))
    if draw.random() < 0.2:
        steps.insert(0, {"type": "Prepend", "prepend": MARK})
    return draw.choice([None, bert, draw.choice(STEPS), {"type": "Sequence", "normalizers": steps}])


def pre_tokenizer(draw: random.Random) -> dict[str, Any] | None:
    scheme, flag = draw.choice(("always", "first", "never")), draw.random() < 0.5
    other = draw.random() < 0.5
    return draw.choice(
        [
            None,
            {"type": "BertPreTokenizer"},
            {"type": "Whitespace"},
            {"type": "WhitespaceSplit"},
            {"type": "ByteLevel", "add_prefix_space": flag, "trim_offsets": True, "use_regex": other},
            {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": flag},
        ]
    )


def combination(seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    parts = {"normalizer": normalizer(draw), "pre_tokenizer": pre_tokenizer(draw)}
    return case(draw.choice(MODELS)) | parts


def tables_or_none(data: dict[str, Any]) -> Tables | None:
    try:
        return build_tables(parse_spec(data))
    except UserError:
        return None


@pytest.mark.parametrize("group", range(4))
def test_combinations_are_exact_or_refused(group: int) -> None:
    checked = 0
    for seed in range(8 * group, 8 * (group + 1)):
        data = combination(seed)
        tables = tables_or_none(data)
        if tables is not None:
            checked += 1
            report = check(data, tables, fuzz_texts(tables.spec, 150, seed))
            assert report.equal == report.texts, (
                data["normalizer"],
                data["pre_tokenizer"],
                report.examples[:1],
            )
    assert checked >= 4
