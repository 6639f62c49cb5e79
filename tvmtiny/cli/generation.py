"""`tvmtiny run --generate`: a compiled language model continues a prompt, and is compared with its reference."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tvmtiny.cli import console
from tvmtiny.errors import EnvironmentProblem, ResultMismatch, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tvmtiny.artifact import Artifact
    from tvmtiny.runner.generate import Generation
    from tvmtiny.sampling import Sampler
    from tvmtiny.target import Target

DEFAULT_TOP_K = 40


def sampler_of(top_k: int | None, temperature: float | None, seed: int) -> Sampler:
    """The sampler that options ask for: greedy without any of them."""
    from tvmtiny.sampling import MOST, Sampler

    if top_k is None and temperature is None:
        return Sampler()
    if top_k is not None and not 1 <= top_k <= MOST:
        raise UserError(f"--top-k is {top_k}.", f"Give 1 to {MOST}.")
    chosen = 1.0 if temperature is None else temperature
    q16 = round(chosen * 65536) if math.isfinite(chosen) else -1
    if not 0 <= q16 < 1 << 32 or not 0 <= seed < 1 << 64:
        raise UserError(
            f"--temperature {temperature}, --seed {seed}: out of range.",
            "A temperature is 0 to 65535, a seed 0 to 2**64 - 1.",
        )
    return Sampler(seed, q16, top_k or DEFAULT_TOP_K)


def parse_ids(text: str) -> list[int]:
    """Token ids separated by commas."""
    try:
        ids = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--ids {text} are no token ids.", "Write them as in --ids 1,403,407.") from error
    if not all(0 <= token < 1 << 16 for token in ids):
        raise UserError(f"--ids {text}: ids are 0 to 65535.", "Give ids of the model's vocabulary.")
    return ids


def run_generation(
    artifact: Artifact,
    where: str,
    prompt: str | Sequence[int],
    count: int,
    sampler: Sampler,
    *,
    target: Target,
    timeout: float,
    as_json: bool,
) -> None:
    """Generate on a kind of runner, print what came of it, and raise where the reference writes something else."""
    from tvmtiny.runner.generate import generate
    from tvmtiny.verify import expected_generation

    with console.progress(f"generating on {where}") as update:
        found = generate(artifact, where, prompt, count, sampler, target=target, timeout_s=timeout)
        update("computing the integer reference")
        expected = expected_generation(artifact, found.prompt, count, sampler)
    texts = _decoded(artifact, found)
    if as_json:
        console.show_json(_report(artifact, target, where, found, texts, bit_exact=found.ids == expected))
    else:
        _show(found, texts)
    if found.ids != expected:
        raise ResultMismatch(
            f"The device wrote the ids {found.ids}, the integer reference {expected}.",
            "This is a defect of tvmtiny or of the C compiler: please report it with the model.",
        )
    if not as_json:
        console.show("All tokens equal those of the integer reference.")


def _decoded(artifact: Artifact, found: Generation) -> tuple[str, str] | None:
    """Prompt and continuation as text, by the tokenizers library; None without a tokenizer or the library."""
    about = artifact.metadata.get("tokenizer")
    if about is None:
        return None
    from tvmtiny.tokenizer.library import require_library

    try:
        tokenizer = require_library().Tokenizer.from_str(
            (artifact.directory / about["file"]).read_text("utf-8")
        )
    except EnvironmentProblem:
        return None
    before, whole = (tokenizer.decode(ids) for ids in (found.prompt, found.prompt + found.ids))
    return before, whole.removeprefix(before)


def _report(
    artifact: Artifact,
    target: Target,
    where: str,
    found: Generation,
    texts: tuple[str, str] | None,
    *,
    bit_exact: bool,
) -> dict[str, Any]:
    return {
        "name": artifact.name,
        "target": target.name,
        "on": where,
        "prompt": found.prompt,
        "ids": found.ids,
        "text": texts[1] if texts else None,
        "instructions": found.result.total_instructions,
        "instructions_per_token": found.instructions_per_token,
        "stack_bytes": found.result.stack_bytes,
        "bit_exact": bit_exact,
    }


def _show(found: Generation, texts: tuple[str, str] | None) -> None:
    if texts is not None:
        console.show_plain("".join(texts))
    console.show_plain(f"Prompt: {' '.join(map(str, found.prompt))}")
    console.show_plain(f"Tokens: {' '.join(map(str, found.ids))}")
    if found.instructions_per_token is not None:
        console.show(
            f"{found.instructions_per_token:,} instructions a token, over {found.steps} tokens with the prompt's"
        )
