"""The tokenizers library, where it is needed: to train, and as the reference."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.tokenizer.tables import Tables


def require_library() -> Any:
    """The module `tokenizers`; raises EnvironmentProblem that says how to install it."""
    try:
        import tokenizers
    except ImportError as error:
        raise EnvironmentProblem(
            "The tokenizers library is needed and was not found.",
            "Install it: pip install 'tvmtiny[tokenizer]'. Compiling and exporting a tokenizer.json do without.",
        ) from error
    return tokenizers


class LibraryTokenizer:
    """What the library gives for the texts of a tokenizer.

    Args:
        data: contents of its tokenizer.json.
        tables: of the same; where they cut texts the library does too.
    """

    def __init__(self, data: Mapping[str, Any], tables: Tables) -> None:
        text = json.dumps(data, ensure_ascii=False)
        try:
            self._tokenizer = require_library().Tokenizer.from_str(text)
        except EnvironmentProblem:
            raise
        except Exception as error:  # the library's bindings raise plain Exception
            raise UserError(f"The tokenizers library refuses this tokenizer: {error}.") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(tables.max_tokens)

    def encode(self, texts: Sequence[bytes]) -> list[list[int]]:
        """The ids of each text, invalid UTF-8 replaced."""
        decoded = [text.decode("utf-8", "replace") for text in texts]
        return [list(encoding.ids) for encoding in self._tokenizer.encode_batch(decoded)]
