"""Model directories of Hugging Face (hf:DIR): what they hold is taken, and what they lack is named."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizer_cases
import tvm
from typer.testing import CliRunner

from tvmtiny.artifact import Artifact
from tvmtiny.cli import app
from tvmtiny.compiler import compile as compile_model
from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.frontend import import_model
from tvmtiny.frontend.opening import open_model
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.pipeline import fusion_passes
from tvmtiny.tokenizer.spec import parse_spec

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

S = 10
TOKENIZER = tokenizer_cases.wordpiece(None)
VOCABULARY = parse_spec(TOKENIZER).size
CLASSES = ["weather", "music", "book"]
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 12,
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with labels and a tokenizer, as its owner saves it."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        **SIZES, id2label=dict(enumerate(CLASSES)), label2id={c: i for i, c in enumerate(CLASSES)}
    )
    directory = tmp_path_factory.mktemp("hf") / "classifier"
    transformers.BertForSequenceClassification(config).save_pretrained(directory)
    (directory / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    return directory


@pytest.fixture
def changed(saved: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy with other fields of config.json, and without some files."""

    def change(*without: str, **fields: Any) -> Path:
        directory = tmp_path / "model"
        shutil.copytree(saved, directory)
        for name in without:
            (directory / name).unlink()
        config = directory / "config.json"
        if fields:
            config.write_text(json.dumps({**json.loads(config.read_text()), **fields}))
        return directory

    return change


def samples(count: int = 12) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, S + 1, (count, 1))
    return {
        "input_ids": rng.integers(0, VOCABULARY, (count, S)),
        "attention_mask": (np.arange(S) < lengths).astype(np.int64),
    }


def refused(directory: Path | str, said: str, **options: Any) -> UserError:
    with pytest.raises(UserError, match=said) as caught:
        open_model(f"hf:{directory}", options.get("shapes"), options.get("max_tokens", S))
    assert caught.value.remedy
    return caught.value


@pytest.fixture(scope="module")
def made(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The directory compiled by the command line, without a network."""
    folder = tmp_path_factory.mktemp("made")
    np.savez(folder / "data.npz", **samples())  # type: ignore[arg-type]
    options = [
        "--target",
        "host",
        "--max-tokens",
        S,
        "--calibration",
        folder / "data.npz",
        "-o",
        folder / "model",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", lambda *_a, **_k: pytest.fail("a connection was opened"))
        result = CliRunner().invoke(app, ["compile", f"hf:{saved}", *map(str, options)])
    assert result.exit_code == 0, result.stderr
    return Artifact.load(folder / "model")


def test_labels_tokenizer_and_output_names_are_those_of_the_directory(saved: Path, made: Artifact) -> None:
    (output,) = made.outputs
    assert (output.name, list(output.labels or ())) == ("logits", CLASSES)
    assert made.metadata["tokenizer"]["vocabulary"] == VOCABULARY
    assert made.metadata["quality"]["source"]["largest_error"] < 1e-5
    files = b"".join((saved / name).read_bytes() for name in ("config.json", "model.safetensors"))
    assert hashlib.sha256(files).hexdigest() in json.dumps(made.metadata)


def test_is_the_model_that_transformers_computes(saved: Path, made: Artifact, tmp_path: Path) -> None:
    from tvmtiny.frontend.data import load_samples
    from tvmtiny.verify import expected_outputs

    data = samples()
    np.savez(tmp_path / "data.npz", **data)  # type: ignore[arg-type]
    model = transformers.BertForSequenceClassification.from_pretrained(saved).eval()
    with torch.no_grad():
        wanted = model(**{name: torch.from_numpy(values) for name, values in data.items()}).logits.numpy()
    (info,) = made.outputs
    rows = expected_outputs(made, load_samples(made, tmp_path / "data.npz"))
    found = np.stack([row["logits"].reshape(-1) for row in rows])
    real = (found.astype(np.float64) - info.zero_point[0]) * info.scale[0]
    assert 10 * np.log10(np.sum(wanted**2) / np.sum((real - wanted) ** 2)) > 25


def test_options_come_before_the_directory(saved: Path, tmp_path: Path) -> None:
    made = compile_model(
        f"hf:{saved}", target="host", calibration=samples(), max_tokens=S, labels=["a", "b", "c"], output=tmp_path / "m"
    )  # fmt: skip
    assert list(made.outputs[0].labels or ()) == ["a", "b", "c"]


def test_token_types_are_an_input_when_asked_for(saved: Path) -> None:
    def inputs(**options: Any) -> list[str]:
        return [param.name for param in Graph(import_model(f"hf:{saved}", **options)["main"]).params]

    assert inputs(max_tokens=S) == ["input_ids", "attention_mask"]
    typed = {"token_type_ids": (1, S)}
    assert inputs(max_tokens=S, shapes=typed) == ["input_ids", "attention_mask", "token_type_ids"]
    assert inputs(shapes={"input_ids": (1, S)}) == ["input_ids", "attention_mask"]


def test_sharded_and_half_precision_weights(saved: Path, tmp_path: Path) -> None:
    model = transformers.BertForSequenceClassification.from_pretrained(saved).half()
    directory = tmp_path / "sharded"
    model.save_pretrained(directory, max_shard_size="4KB")
    shards = sorted(directory.glob("*.safetensors"))
    assert len(shards) > 1
    opened = open_model(f"hf:{directory}", max_tokens=S)
    assert set(opened.files) == {directory / "config.json", *shards}
    assert {str(value.dtype) for value in opened.model.state_dict.values() if value.is_floating_point()} == {
        "torch.float32"
    }
    shards[0].unlink()
    refused(directory, f"lacks '{shards[0].name}'")


def test_an_image_model_has_its_shape_in_the_configuration(tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=8
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    opened = open_model(f"hf:{tmp_path}")
    assert [tuple(v.shape) for v in opened.model.example_inputs[1].values()] == [(1, 3, 16, 16)]
    assert opened.labels is None


def test_what_is_no_directory_is_not_downloaded() -> None:
    error = refused("bert-base-uncased", "no directory bert-base-uncased, and nothing is downloaded")
    assert "hf download bert-base-uncased" in error.remedy


@pytest.mark.parametrize(
    ("without", "fields", "said"),
    [
        (("config.json",), {}, "no config.json"),
        (("model.safetensors",), {}, "no model.safetensors"),
        ((), {"architectures": None}, "names no architecture"),
        ((), {"architectures": ["BertForSequenceClasification"]}, "none of transformers"),
        ((), {"architectures": ["BertConfig"]}, "none of transformers"),
        ((), {"architectures": ["Own"], "auto_map": {}}, "code of the directory is not run"),
        ((), {"architectures": ["T5Model"], "is_encoder_decoder": True}, "cross-attention"),
        ((), {"quantization_config": {"bits": 4}}, "quantized for another runtime"),
        ((), {"num_hidden_layers": 2}, r"lack 'bert\.encoder\.layer\.1"),
        ((), {"hidden_size": 32}, r"have other shapes for 'bert\."),
        ((), {"hidden_size": "wide"}, "cannot be made from"),
    ],
)
def test_names_what_is_missing_or_wrong(
    changed: Callable[..., Path], without: tuple[str, ...], fields: dict[str, Any], said: str
) -> None:
    refused(changed(*without, **fields), said)


def test_suggests_the_nearest_class(changed: Callable[..., Path]) -> None:
    error = refused(changed(architectures=["BertForSequenceClasification"]), "is none of transformers")
    assert "Did you mean 'BertForSequenceClassification'?" in error.remedy


def test_damaged_files_are_told(changed: Callable[..., Path]) -> None:
    directory = changed()
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    refused(directory, "cannot be made from")
    (directory / "config.json").write_text("{")
    refused(directory, "is not JSON")
    (directory / "config.json").write_text("[]")
    refused(directory, "is not a JSON object")


def test_pickled_weights_are_not_read(changed: Callable[..., Path]) -> None:
    directory = changed("model.safetensors")
    (directory / "pytorch_model.bin").write_bytes(b"")
    assert "save_pretrained" in refused(directory, "pytorch_model.bin, a format that can run code").remedy


def test_the_number_of_tokens_is_required_and_limited(saved: Path) -> None:
    assert "--max-tokens N (at most 12)" in refused(saved, "texts of any length", max_tokens=None).remedy
    refused(saved, r"13 tokens are more than the model has positions \(12\)", max_tokens=13)
    refused(saved, "lacks", shapes={"token_type": (1, S)})


@pytest.mark.parametrize("padding", [0, 1])
def test_positions_of_padding_are_no_tokens(padding: int, tmp_path: Path) -> None:
    """RoBERTa counts from behind its id of padding, in a table of max_position_embeddings rows."""
    config = transformers.RobertaConfig(**SIZES, pad_token_id=padding, type_vocab_size=1)
    directory, most = tmp_path / "roberta", 12 - (padding + 1)
    model = transformers.RobertaForSequenceClassification(config)
    model.save_pretrained(directory)
    assert f"(at most {most})" in refused(directory, "texts of any length", max_tokens=None).remedy
    assert f"--max-tokens {most} or less" in refused(directory, "more than", max_tokens=most + 1).remedy
    fused = tvm.transform.Sequential(fusion_passes())
    fused(import_model(f"hf:{directory}", max_tokens=most))

    ids = torch.zeros((1, 12), dtype=torch.int64), torch.ones((1, 12), dtype=torch.int64)
    torch.export.save(torch.export.export(model.eval(), ids, strict=False), tmp_path / "model.pt2")
    with pytest.raises(UserError, match="of a table of 12 rows") as caught:
        fused(import_model(tmp_path / "model.pt2"))
    assert f"--max-tokens {most} or less" in caught.value.remedy


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_says_what_to_install(saved: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvironmentProblem, match=package) as caught:
        open_model(f"hf:{saved}", max_tokens=S)
    assert "tvmtiny[hf]" in caught.value.remedy


def test_inspect_takes_directories(saved: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["inspect", f"hf:{saved}", "--max-tokens", str(S), "--target", "qemu-m4"]
    )
    assert "classifier takes 1 to 10 tokens" in result.stdout
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "missing.onnx")])
    assert (result.exit_code, "There is no file" in result.stderr) == (2, True)
