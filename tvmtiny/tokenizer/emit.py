"""The C of a tokenizer's tables."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

from tvmtiny import __version__
from tvmtiny.codegen.c_sources import LINE
from tvmtiny.codegen.symbols import c_string
from tvmtiny.resources import data_dir
from tvmtiny.templates import jinja_environment
from tvmtiny.tokenizer.tables import Tables

HEADER = "tvmt_tokenizer.h"


@dataclasses.dataclass(frozen=True)
class TokenizerSources:
    """C files of a tokenizer, by path relative to where they go; headers other than its own are in include/."""

    files: dict[str, str]
    sources: tuple[str, ...]


def tokenizer_sources(tables: Tables, name: str) -> TokenizerSources:
    """The generated tables of a tokenizer and the parts of the C library that they need.

    Args:
        name: C prefix.
    """
    common = data_dir("microtvm_projects") / "common"
    templates, context = jinja_environment("tvmtiny.tokenizer"), _context(tables, name)
    files = {
        f"{name}_tokenizer.{kind}": templates.get_template(f"tokenizer.{kind}.j2").render(context)
        for kind in "hc"
    }
    files[f"include/{HEADER}"] = (common / HEADER).read_text("utf-8")
    files |= {source: (common / source).read_text("utf-8") for source in tables.sources}
    return TokenizerSources(files, (f"{name}_tokenizer.c", *tables.sources))


def _context(tables: Tables, name: str) -> dict[str, Any]:
    arrays = _character_arrays(tables) + _vocabulary_arrays(tables) + _text_arrays(tables)
    present = {array["symbol"] for array in arrays}
    vocabulary = _trie(tables) if tables.trie is not None else _merges(tables, present)
    return {
        "name": name,
        "NAME": name.upper(),
        "version": __version__,
        "kind": tables.spec.kind,
        "size": tables.spec.size,
        "max_tokens": tables.max_tokens,
        "work_words": tables.work_words,
        "arrays": arrays,
        "structs": [vocabulary, _tables(tables, name, present)],
    }


def _array(ctype: str, symbol: str, values: Sequence[int | str]) -> list[dict[str, Any]]:
    """An array as a list of one, or of none when it is empty: C has no empty arrays."""
    if not values:
        return []
    suffix = "u" if ctype == "uint32_t" else ""
    text = ", ".join(f"{value}{suffix}" for value in values) + ","
    initializer = textwrap.fill(text, LINE, initial_indent="    ", subsequent_indent="    ")
    return [{"ctype": ctype, "symbol": symbol, "count": len(values), "initializer": initializer}]


def _rows(ctype: str, symbol: str, rows: Sequence[str]) -> list[dict[str, Any]]:
    """An array of structures, a line each."""
    initializer = "\n".join(f"    {{{row}}}," for row in rows)
    return (
        [{"ctype": ctype, "symbol": symbol, "count": len(rows), "initializer": initializer}] if rows else []
    )


def _character_arrays(tables: Tables) -> list[dict[str, Any]]:
    table = tables.characters
    return [
        *_array("uint8_t", "characters_ascii", table.ascii),
        *_array("uint32_t", "characters_group_start", table.group_start),
        *_array("uint16_t", "characters_group_offset", table.group_offset),
        *_array("uint8_t", "characters_runs", list(table.runs)),
        *_array("uint32_t", "characters_pool", table.pool),
    ]


def _vocabulary_arrays(tables: Tables) -> list[dict[str, Any]]:
    if tables.trie is not None:
        trie = tables.trie
        return [
            *_array("uint8_t", "trie_label", trie.label),
            *_array("uint8_t", "trie_children", trie.children),
            *_rows("tvmt_trie_block", "trie_block", [f"{a}u, {b}, {c}" for a, b, c in trie.blocks]),
            *_array("uint16_t", "trie_ids", trie.ids or [0]),
        ]
    assert tables.merges is not None
    packed = tables.merges
    return [
        *_array("uint32_t", "symbol_characters", packed.characters),
        *_array("uint16_t", "symbol_ids", packed.character_ids),
        *_array("uint16_t", "byte_ids", packed.byte_ids),
        *(_array("uint16_t", "merge_first", packed.first) if packed.rank else []),
        *_array("uint16_t", "merge_right", packed.right),
        *_array("uint16_t", "merge_rank", packed.rank),
        *_array("uint16_t", "merge_result", packed.ranked),
    ]


def _text_arrays(tables: Tables) -> list[dict[str, Any]]:
    spec = tables.spec
    rows = [f"{c_string(text)}, {index}, {len(text.encode())}" for text, index in spec.specials.items()]
    return [
        *_rows("tvmt_special_token", "specials", rows),
        *_array("uint16_t", "around", [*spec.before, *spec.after]),
    ]


def _trie(tables: Tables) -> dict[str, Any]:
    fields = {
        "label": "trie_label",
        "children": "trie_children",
        "block": "trie_block",
        "ids": "trie_ids",
        "max_characters": f"{tables.spec.max_characters}u",
        "unknown": tables.spec.unknown_id,
    }
    return {"ctype": "tvmt_trie", "symbol": "trie", "fields": fields}


def _merges(tables: Tables, present: set[str]) -> dict[str, Any]:
    packed, unknown = tables.merges, tables.spec.unknown_id
    assert packed is not None
    arrays = {
        "characters": "symbol_characters",
        "character_ids": "symbol_ids",
        "byte_ids": "byte_ids",
        "merge_first": "merge_first",
        "merge_right": "merge_right",
        "merge_rank": "merge_rank",
        "merged": "merge_result",
    }
    fields: dict[str, Any] = {field: _present(symbol, present) for field, symbol in arrays.items()}
    fields |= {
        "n_characters": f"{len(packed.characters)}u",
        "n_symbols": f"{len(packed.first) - 1 if packed.rank else 0}u",
        "word_symbols": f"{packed.word_symbols}u",
        "longest": f"{packed.longest}u",
        "unknown": "TVMT_NO_SYMBOL" if unknown is None else unknown,
        "fuse_unknown": int(tables.spec.fuse_unknown),
    }
    return {"ctype": "tvmt_merges", "symbol": "merges", "fields": fields}


def _present(symbol: str, present: set[str]) -> str:
    return symbol if symbol in present else "NULL"


def _tables(tables: Tables, name: str, present: set[str]) -> dict[str, Any]:
    spec, splitting = tables.spec, tables.spec.splitting
    parts = ("ascii", "group_start", "group_offset", "runs", "pool")
    arrays = [_present(f"characters_{part}", present) for part in parts]
    first = dict.fromkeys(text.encode()[0] for text in spec.specials)
    fields = {
        "characters": f"{{{', '.join(arrays)}, {len(tables.characters.group_start)}u}}",
        "splitter": f"&{splitting.splitter}",
        "model": f"&{tables.model}",
        "trie": "&trie" if tables.trie is not None else "NULL",
        "merges": "&merges" if tables.merges is not None else "NULL",
        "specials": _present("specials", present),
        "special_first": '"' + "".join(f"\\{byte:03o}" for byte in first) + '"',
        "around": _present("around", present),
        "word_mark": f"{ord(splitting.word_mark)}u" if splitting.word_mark else "TVMT_NO_MARK",
        "prefix": f"{ord(splitting.prefix) if splitting.prefix else 0}u",
        "max_tokens": tables.max_tokens,
        "n_specials": len(spec.specials),
        "n_before": len(spec.before),
        "n_after": len(spec.after),
        "prefix_when": int(splitting.prefix_when),
        "special_bytes": tables.special_bytes,
    }
    return {"ctype": "tvmt_tokenizer_tables", "symbol": f"{name}_tokenizer_tables", "fields": fields}
