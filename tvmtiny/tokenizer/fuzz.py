"""Random texts that look for a tokenizer's corners: the same ones for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from tvmtiny.tokenizer.spec import TokenizerSpec
from tvmtiny.tokenizer.unicode import code_point_map, code_point_set

_BLOCKS = (
    (0x00, 0x20),  # control characters, NUL
    (0x20, 0x7F),
    (0x80, 0x250),  # Latin
    (0x250, 0x370),  # combining marks
    (0x370, 0x530),  # Greek, Cyrillic
    (0x590, 0x700),  # Hebrew, Arabic
    (0x900, 0xE80),  # Indic scripts, Thai
    (0x1100, 0x1200),  # Hangul jamo
    (0x1E00, 0x2070),  # accents, spaces
    (0x2070, 0x3000),
    (0x3000, 0x3100),
    (0x4E00, 0x9FFF),  # CJK
    (0xAC00, 0xD7A4),  # Hangul
    (0xD800, 0xE000),  # surrogates: never valid
    (0xF900, 0x10000),
    (0x10000, 0x110000),
    (0x1D100, 0x1D200),  # musical symbols: ordered marks
    (0x1F300, 0x1FA00),
)
_SPACES = (" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u0085", "\u200b", "\u2028")
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'", "'r", "'v", "'l", "'S", "''s", " 's")
_MARKS = "\u0300\u0301\u0308\u0323\u0327\u0345\u05b0\u0e38\u302e\u302f\u20d0\U0001d165\U0001d16e"


def fuzz_texts(spec: TokenizerSpec, count: int, seed: int) -> Iterator[bytes]:
    """`count` texts, most of them valid UTF-8, that mix what the tokenizer knows with what it does not."""
    draw = random.Random(seed)
    pieces = [piece.removeprefix(spec.continuation) for piece in spec.vocabulary]
    specials = list(spec.specials)
    changed = [*code_point_map("decompose"), *code_point_map("lower"), *sorted(code_point_set("punctuation"))]
    parts: Sequence[Callable[[], str]] = (
        lambda: "".join(draw.choice(pieces) for _ in range(draw.randint(1, 4))),
        lambda: _cased(draw, draw.choice(pieces)),
        lambda: _from_blocks(draw, draw.randint(1, 8)),
        lambda: draw.choice(_SPACES),
        lambda: draw.choice(_CONTRACTIONS),
        lambda: draw.choice("abcxyzAZ09") + "".join(draw.choices(_MARKS, k=draw.randint(1, 3))),
        lambda: draw.choice(changed),
        lambda: _special(draw, specials),
        lambda: str(draw.randint(0, 10**6)),
        lambda: _long_word(draw, pieces) if draw.random() < 0.1 else " ",
    )
    for _ in range(count):
        text = "".join(draw.choice(parts)() for _ in range(draw.randint(0, 12)))
        yield _damaged(draw, text.encode("utf-8", "surrogatepass"))


def _from_blocks(draw: random.Random, count: int) -> str:
    first, last = draw.choice(_BLOCKS)
    return "".join(chr(draw.randrange(first, last)) for _ in range(count))


def _cased(draw: random.Random, text: str) -> str:
    return draw.choice((text.upper(), text.title(), text.swapcase()))


def _special(draw: random.Random, specials: Sequence[str]) -> str:
    """A special token, or a part of one."""
    if not specials:
        return "<s>"
    token = draw.choice(specials)
    return token if draw.random() < 0.5 else token[: draw.randint(1, len(token))]


def _long_word(draw: random.Random, pieces: Sequence[str]) -> str:
    kind = draw.randrange(4)
    if kind == 0:
        return draw.choice("aeé中") * draw.randint(90, 400)
    if kind == 1:
        return "".join(draw.choice(pieces) for _ in range(draw.randint(30, 150)))
    if kind == 2:
        return "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(98, 102)))
    return draw.choice((" ", "\n", "!", "'", "7", "ab")) * draw.randint(60, 300)


def _damaged(draw: random.Random, data: bytes) -> bytes:
    """Sometimes with bytes changed, cut off or put in."""
    if draw.random() < 0.7 or not data:
        return data
    damaged = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(damaged) + 1)
        action = draw.randrange(3)
        if action == 0:
            damaged[at : at + 1] = bytes([draw.randrange(256)])
        elif action == 1:
            del damaged[at : at + draw.randint(1, 3)]
        else:
            damaged[at:at] = draw.randbytes(draw.randint(1, 4))
    return bytes(damaged)


def random_parts(draw: random.Random, data: bytes) -> list[bytes]:
    """A text as it may come from a serial port: in pieces of any length."""
    cuts = sorted(draw.randrange(len(data) + 1) for _ in range(draw.randint(0, 3)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
