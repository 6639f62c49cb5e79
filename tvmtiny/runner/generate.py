"""Let a compiled language model write, where it runs, and compare with the integer reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.errors import UserError
from tvmtiny.runner.api import RunResult, run
from tvmtiny.runner.protocol import Sample
from tvmtiny.sampling import Sampler

_SETTINGS_BYTES, _COUNTS_BYTES = 24, 8


@dataclasses.dataclass(frozen=True)
class Generation:
    """What a model wrote.

    Attributes:
        prompt: ids that it began with. ids: those that it added.
        result: of the run; its outputs are the harness's.
    """

    prompt: list[int]
    ids: list[int]
    result: RunResult

    @property
    def steps(self) -> int:
        """Tokens that the model took in."""
        return len(self.prompt) - 1 + max(1, len(self.ids))

    @property
    def instructions_per_token(self) -> int | None:
        """Of the whole run, prompt included, over the tokens that it took in; None where it cannot be told."""
        total = self.result.total_instructions
        return None if total is None else round(total / self.steps)


def generate(
    artifact: Artifact,
    on: str,
    prompt: str | Sequence[int],
    count: int,
    sampler: Sampler,
    *,
    end: int = -1,
    **options: Any,
) -> Generation:
    """Continue a prompt by up to `count` tokens.

    Args:
        on: a kind of runner; options and errors as of `tvmtiny.runner.run`.
        prompt: text, for a model with a tokenizer, or ids.
        sampler: how to choose; it is not changed.
        end: id that ends the text; -1: none.

    Raises:
        UserError: the model is no generator, or the prompt or count is too long for it.
    """
    about = (artifact.metadata.get("step") or {}).get("generate")
    if about is None:
        raise UserError(
            f"{artifact.name} is no generator.",
            "Compile a causal language model, from one input of ids to logits over the same ids, with --step.",
        )
    wrapped = _with_settings(artifact, int(about["most"]))
    if not 1 <= count <= about["most"]:
        raise UserError(f"--generate {count}: 1 to {about['most']} tokens are possible.", "Give fewer.")
    place = artifact.directory / "build" / f"generate-{on.partition(':')[0]}"
    data, size = _prompt(wrapped, prompt)
    sample = Sample({"settings": _settings(sampler, end, count), "prompt": data}, size)
    result = run(wrapped, on, [sample], build_dir=place, **options)
    if result.status != [0]:
        raise UserError(
            f"{artifact.name} refused the prompt with status {result.status[0]}.",
            f"See enum {artifact.name}_status in {artifact.directory / artifact.name}.h for its meaning.",
        )
    found = result.outputs[0]
    before, after = (int(value) for value in found["counts"])
    return Generation(found["ids"][:before].tolist(), found["generated"][:after].tolist(), result)


def _settings(sampler: Sampler, end: int, count: int) -> np.ndarray:
    words = [
        sampler.random & 0xFFFFFFFF, sampler.random >> 32, sampler.temperature_q16, sampler.top_k, end, count
    ]  # fmt: skip
    return np.array([word & 0xFFFFFFFF for word in words], np.uint32).view(np.int32)


def _prompt(wrapped: Artifact, prompt: str | Sequence[int]) -> tuple[np.ndarray, int]:
    """The prompt as the harness takes it, and its length."""
    info = wrapped.inputs[1]
    if isinstance(prompt, str) != (info.dtype == "uint8"):
        takes = "text" if info.dtype == "uint8" else "ids: it was compiled without --tokenizer"
        raise UserError(f"{wrapped.name} takes a prompt of {takes}.", "Give --text for text, --ids for ids.")
    values = (
        np.frombuffer(prompt.encode("utf-8", "surrogateescape"), np.uint8)
        if isinstance(prompt, str)
        else np.asarray(prompt, np.uint16)
    )
    if not 0 < len(values) <= info.shape[0]:
        raise UserError(
            f"The prompt has {len(values)} {'bytes' if isinstance(prompt, str) else 'ids'}; 1 to {info.shape[0]} are "
            "possible here."
        )
    padded = np.zeros(info.shape, info.dtype)
    padded[: len(values)] = values
    return padded, len(values)


def _with_settings(artifact: Artifact, most: int) -> Artifact:
    """The model as `<name>_generate_model` describes it."""
    tokenizer = artifact.metadata.get("tokenizer")
    size, dtype = (most, "uint16") if tokenizer is None else (int(tokenizer["text_bytes"]), "uint8")
    place = (artifact.arena_bytes + 3) // 4 * 4
    tensors = []
    for name, kind, dtype_, count in (
        ("settings", "features", "int32", _SETTINGS_BYTES // 4),
        ("prompt", "features", dtype, size),
        ("counts", "output", "int32", _COUNTS_BYTES // 4),
        ("ids", "output", "uint16", most),
        ("generated", "output", "uint16", most),
    ):
        tensors.append(TensorInfo(name, kind, dtype_, (count,), place, count * np.dtype(dtype_).itemsize))
        place += tensors[-1].bytes
    return dataclasses.replace(
        artifact,
        name=f"{artifact.name}_generate",
        inputs=tuple(tensors[:2]),
        outputs=tuple(tensors[2:]),
        max_tokens=size,
        arena_bytes=place,
    )
