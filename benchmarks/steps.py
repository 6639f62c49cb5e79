"""What a step costs: a decoder at several positions, and a stream beside computing its whole window anew.

    python benchmarks/steps.py [--target qemu-m4]

The decoder has the shape of stories260K (https://huggingface.co/karpathy/tinyllamas): 64 wide, 5 layers, 8 heads, 4 of
them for K and V, 172 hidden, 512 ids, 512 positions; its class is LlamaForCausalLM. The stream takes frames of 40
log-mel bands through two causal convolutions and two layers of attention to the last 32 frames, and gives 12 scores for
each; the whole window has 96. Weights are random. Instructions are counted in QEMU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model
from tvmtiny.frontend.data import load_samples
from tvmtiny.runner import RunResult, Sample, run
from tvmtiny.runner.steps import run_sequences
from tvmtiny.verify import expected_outputs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import step_models

POSITIONS = (1, 128, 511)
CONTEXT, VOCABULARY = 512, 512
FRAMES, BANDS, WINDOW = 96, 40, 32


class Logits(nn.Module):
    """A Hugging Face decoder without its cache: ids to logits."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=172,
            num_hidden_layers=5,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
        )
        self.model = LlamaForCausalLM(config)
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(4)  # Hugging Face's 0.02 makes attention uniform

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(1, S) -> (1, S, V)."""
        return self.model(input_ids=input_ids, use_cache=False).logits


class Spotter(nn.Module):
    """Log-mel frames to scores of keywords, a row a frame."""

    def __init__(self) -> None:
        super().__init__()
        shape = step_models.Shape(S=FRAMES, E=64, H=4, K=4, F=128, layers=2)
        self.first, self.second = nn.Conv1d(BANDS, 64, 5), nn.Conv1d(64, 64, 3)
        self.layers, self.head = step_models.Layers(shape, WINDOW, "", False), nn.Linear(64, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, S, bands) -> (1, S, classes)."""
        x = functional.relu(self.first(functional.pad(x.transpose(1, 2), (4, 0))))
        x = functional.relu(self.second(functional.pad(x, (2, 0))))
        return self.head(self.layers(x.transpose(1, 2)))


def compiled(
    module: nn.Module, arrays: dict[str, np.ndarray], target: str, step: int | None, to: Path
) -> Artifact:
    """A module compiled to `to`, in steps or for whole sequences."""
    program = torch.export.export(module, tuple(torch.from_numpy(array[:1]) for array in arrays.values()))
    return compile_model(program, target=target, calibration=arrays, step=step, output=to)


def sample(made: Artifact, arrays: dict[str, np.ndarray], directory: Path) -> Sample:
    """The first sample in the arena's types."""
    path = directory / "sample.npz"
    np.savez(path, **{name: array[:1] for name, array in arrays.items()})  # type: ignore[arg-type]
    return load_samples(made, path)[0]


def checked(made: Artifact, result: RunResult, sequence: Sample) -> RunResult:
    """The result, whose bytes must be those of the reference."""
    (expected,) = expected_outputs(made, [sequence])
    assert all(np.array_equal(result.outputs[0][name], rows) for name, rows in expected.items())
    return result


def instructions_at(made: Artifact, sequence: Sample, position: int) -> int:
    """Of the step that takes the token with `position` tokens before it."""
    totals = []
    for count in (position, position + 1):
        part = Sample(sequence.inputs, count)
        totals.append(run_sequences(made, "qemu", [part], timeout_s=600).total_instructions or 0)
    return totals[1] - totals[0]


def memory(made: Artifact, result: RunResult) -> str:
    """What a compiled model takes."""
    kept = (made.metadata["step"] or {}).get("state_bytes", 0)
    sizes = result.sizes
    flash = sizes.weight_bytes + sizes.code_bytes + sizes.table_bytes
    return (
        f"arena {made.arena_bytes:,} B ({kept:,} of them live from step to step), flash {flash:,} B "
        f"({sizes.weight_bytes:,} constants), stack {result.stack_bytes} B"
    )


def decoder(target: str, directory: Path) -> None:
    """Print what a decoder costs."""
    torch.manual_seed(0)
    arrays = {"input_ids": np.random.default_rng(0).integers(0, VOCABULARY, (8, CONTEXT))}
    made = compiled(Logits().eval(), arrays, target, 1, directory / "decoder")
    sequence = sample(made, arrays, directory)
    result = checked(made, run_sequences(made, "qemu", [sequence], timeout_s=600), sequence)
    print(f"decoder: {memory(made, result)}")
    for position in POSITIONS:
        print(f"  position {position:3}: {instructions_at(made, sequence, position):,} instructions")
    print(f"  {CONTEXT} tokens: {result.total_instructions:,} instructions")


def stream(target: str, directory: Path) -> None:
    """Print what a stream costs, and its window at once."""
    torch.manual_seed(0)
    arrays: dict[str, Any] = {
        "x": np.random.default_rng(0).normal(size=(16, FRAMES, BANDS)).astype(np.float32)
    }
    module = Spotter().eval()
    made = compiled(module, arrays, target, 1, directory / "stream")
    sequence = sample(made, arrays, directory)
    result = checked(made, run_sequences(made, "qemu", [sequence], timeout_s=600), sequence)
    print(f"stream: {memory(made, result)}")
    print(f"  a frame: {instructions_at(made, sequence, FRAMES - 1):,} instructions")
    whole = compiled(module, arrays, target, None, directory / "window")
    chosen = sample(whole, arrays, directory)
    result = checked(whole, run(whole, "qemu", [chosen], timeout_s=600), chosen)
    print(f"window of {FRAMES} frames: {memory(whole, result)}")
    print(f"  a window: {result.instructions:,} instructions")


def main() -> None:
    """Both, for one target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", default="qemu-m4")
    target = parser.parse_args().target
    with tempfile.TemporaryDirectory() as directory:
        decoder(target, Path(directory))
        stream(target, Path(directory))


if __name__ == "__main__":
    main()
