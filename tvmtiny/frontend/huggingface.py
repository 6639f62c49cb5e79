"""Hugging Face model directories (`hf:DIR`): config.json names the class, model.safetensors has the weights.

The class of transformers is built in evaluation mode and exported by torch.export for one length; TVM's importer of
torch programs does the rest. Nothing is downloaded, and no code of the directory is run.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.frontend.names import listed, suggestion
from tvmtiny.frontend.opening import HF_PREFIX, OpenedModel

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
INDEX = f"{WEIGHTS}.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")

TEXT_INPUTS = ("input_ids", "attention_mask")
"""Inputs of a text model; token types are zeros in the export unless --shape names them."""

FAMILIES = (
    "Albert", "Bert", "Camembert", "DeiT", "DistilBert", "Electra", "Ernie", "MobileBert", "ModernBert", "MPNet",
    "Roberta", "RoFormer", "ViT", "XLMRoberta",
)  # fmt: skip
HEADS = ("Model", "ForSequenceClassification", "ForTokenClassification", "ForImageClassification")
"""Classes that are known to compile are a family and a head; others are tried."""

_SHOWN = 6
Shapes = Mapping[str, tuple[int, ...]]


def open_directory(directory: Path, shapes: Shapes, max_tokens: int | None) -> OpenedModel:
    """Export the model of a directory.

    Args:
        shapes: sizes of inputs by name, batch included; names beside the usual ones add inputs (token_type_ids).
        max_tokens: the number of tokens of a text model.

    Raises:
        UserError: no such directory, incomplete, of an unknown class, or one that torch.export refuses.
        EnvironmentProblem: torch or transformers is missing.
    """
    config = _config(directory)
    files = _weight_files(directory)
    model = _load(directory, config)
    program = _export(model, _example(model, shapes, max_tokens), directory)
    tokenizer = directory / TOKENIZER
    return OpenedModel(
        program,
        directory.resolve().name,
        (directory / CONFIG, *files),
        _labels(model),
        tokenizer if tokenizer.is_file() and model.main_input_name == TEXT_INPUTS[0] else None,
    )


def _config(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise UserError(
            f"{HF_PREFIX}{directory}: there is no directory {directory}, and nothing is downloaded.",
            f"Download it first: hf download {directory} --local-dir DIR; then compile {HF_PREFIX}DIR.",
        )
    path = directory / CONFIG
    if not path.is_file():
        raise UserError(
            f"{directory} is no Hugging Face model directory: it has no {CONFIG}.",
            "Write it with model.save_pretrained(DIR).",
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSON's and Unicode's
        raise UserError(f"{path} is not JSON: {error}.", "Download or save the model again.") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a JSON object.", "Download or save the model again.")
    return config


def _weight_files(directory: Path) -> list[Path]:
    """The safetensors files; several where the index says so."""
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    index = directory / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(
                f"{index} lists no files of weights: {error}.", "Download the model again."
            ) from error
        missing = [name for name in names if not (directory / str(name)).is_file()]
        if missing:
            raise UserError(
                f"{directory} lacks {listed(missing)}, which {INDEX} names.", "Download the missing files."
            )
        return [directory / name for name in names]
    pickled = next((name for name in PICKLED if (directory / name).is_file()), None)
    if pickled is not None:
        raise UserError(
            f"{directory} has its weights in {pickled}, a format that can run code when it is read.",
            f"Convert it where you trust it: AutoModel...from_pretrained('{directory}').save_pretrained(DIR) writes "
            f"{WEIGHTS}.",
        )
    raise UserError(
        f"{directory} has no {WEIGHTS}.",
        "Write it with model.save_pretrained(DIR), or download the whole model.",
    )


def _load(directory: Path, config: dict[str, Any]) -> Any:
    """The model of transformers, float32, in evaluation mode."""
    chosen = _class(_transformers(), directory, config)
    # A class without one of the two implementations says so by ValueError.
    for attention in ("sdpa", "eager"):
        try:
            return _from_pretrained(chosen, directory, attention)
        except ValueError as error:
            reason = error
    raise UserError(
        f"{chosen.__name__} cannot be made from {directory}: {_first_line(reason)}",
        f"Check that {CONFIG} and {WEIGHTS} belong together.",
    )


def _transformers() -> Any:
    try:
        import torch  # noqa: F401 - transformers imports without it, and its models then do not
        import transformers
    except ImportError as error:
        raise EnvironmentProblem(
            f"A Hugging Face directory needs torch and transformers; {error.name or 'one of them'} is not installed.",
            "pip install tvmtiny[hf], or export the model to ONNX where they are.",
        ) from error
    return transformers


def _class(transformers: Any, directory: Path, config: dict[str, Any]) -> Any:
    names = config.get("architectures") or []
    if not isinstance(names, list) or not names:
        raise UserError(
            f"{directory / CONFIG} names no architecture.",
            "Save the model from its own class, model.save_pretrained(DIR), or add "
            '"architectures": ["BertForSequenceClassification"] or the like.',
        )
    name = str(names[0])
    known = [family + head for family in FAMILIES for head in HEADS]
    if config.get("quantization_config"):
        raise UserError(
            f"The weights of {directory} are quantized for another runtime (quantization_config of {CONFIG}).",
            "Give the float model; tvmtiny quantizes it with calibration data.",
        )
    chosen = getattr(transformers, name, None)
    if not inspect.isclass(chosen) or not issubclass(chosen, transformers.PreTrainedModel):
        where = "; code of the directory is not run" if "auto_map" in config else ""
        raise UserError(
            f"The architecture '{name}' is none of transformers {transformers.__version__}{where}.",
            f"{suggestion(name, known)} Or export the model yourself: torch.export.save, or torch.onnx.export.",
        )
    if config.get("is_encoder_decoder"):
        raise UserError(
            f"'{name}' is an encoder and a decoder with cross-attention, which is not supported.",
            "The nearest supported form is an encoder, such as BertForSequenceClassification.",
        )
    return chosen


def _from_pretrained(chosen: Any, directory: Path, attention: str) -> Any:
    import torch

    try:
        with _quiet():
            model, found = chosen.from_pretrained(
                directory,
                attn_implementation=attention,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # so that they are listed, and refused below
                output_loading_info=True,
            )
    except ValueError:
        raise
    except Exception as error:  # safetensors, JSON and each configuration class raise their own
        raise UserError(
            f"{chosen.__name__} cannot be made from {directory}: {_first_line(error)}",
            f"Check {CONFIG}, and that the weights were downloaded whole.",
        ) from error
    _check_weights(found, directory, chosen.__name__)
    return model.eval()


def _check_weights(found: Mapping[str, Any], directory: Path, name: str) -> None:
    """Weights that were not there would be random."""
    for what, keys in (
        ("lack", sorted(found["missing_keys"])),
        ("have other shapes for", sorted(str(entry[0]) for entry in found["mismatched_keys"])),
    ):
        if keys:
            more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            raise UserError(
                f"The weights in {directory} {what} {listed(keys[:_SHOWN])}{more}, which {name} needs.",
                f"Check that {CONFIG} and the weights belong together. A base model (BertModel) has no head of a "
                "classifier: give the directory of the trained classifier.",
            )


def _example(model: Any, shapes: Shapes, max_tokens: int | None) -> dict[str, Any]:
    """Zeros for each input, by name, in the order of the model's arguments."""
    import torch

    arguments = [name for name in inspect.signature(model.forward).parameters if name != "kwargs"]
    for name in shapes:
        if name not in arguments:
            raise UserError(
                f"--shape names an input '{name}' that {type(model).__name__} lacks.",
                suggestion(name, arguments),
            )
    sizes = {**_own_shapes(model, arguments, shapes, max_tokens), **shapes}
    return {
        name: torch.zeros(sizes[name], dtype=torch.int64 if _is_integer(name) else torch.float32)
        for name in arguments
        if name in sizes
    }


def _is_integer(name: str) -> bool:
    return name.endswith(("_ids", "_mask"))


def _own_shapes(
    model: Any, arguments: list[str], shapes: Shapes, max_tokens: int | None
) -> dict[str, tuple[int, ...]]:
    """Shapes of the usual inputs."""
    main, config = model.main_input_name, model.config
    if main == TEXT_INPUTS[0]:
        return {name: (1, _tokens(model, shapes, max_tokens)) for name in TEXT_INPUTS if name in arguments}
    if main in shapes:
        return {}
    extent = getattr(config, "image_size", None)
    if main == "pixel_values" and extent is not None:
        rows, columns = (extent, extent) if isinstance(extent, int) else tuple(extent)
        return {main: (1, int(getattr(config, "num_channels", 3)), int(rows), int(columns))}
    raise UserError(
        f"The shape of '{main}', the input of {type(model).__name__}, is not in {CONFIG}.",
        f"Give it, as in --shape {main}=1x128x64.",
    )


def _most_tokens(model: Any) -> int | None:
    """How many tokens a model has positions for. RoBERTa's kin leave the first rows of the table to padding."""
    most = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(most, int) or most <= 0:  # XLNet has -1
        return None
    tables = [table for name, table in model.named_modules() if name.endswith("position_embeddings")]
    unused = [table.padding_idx + 1 for table in tables if getattr(table, "padding_idx", None) is not None]
    return most - max(unused, default=0)


def _tokens(model: Any, shapes: Shapes, max_tokens: int | None) -> int:
    given = shapes.get(TEXT_INPUTS[0], ())
    tokens = max_tokens if max_tokens is not None else given[1] if len(given) == 2 else None
    most = _most_tokens(model)
    limit = f"at most {most}" if most is not None else "as trained"
    if tokens is None:
        raise UserError(
            "A Hugging Face model takes texts of any length; a static arena needs the largest.",
            f"Give --max-tokens N ({limit}): memory and time grow with it.",
        )
    if most is not None and tokens > most:
        raise UserError(
            f"{tokens} tokens are more than the model has positions ({most}).",
            f"Give --max-tokens {most} or less.",
        )
    return int(tokens)


def _export(model: Any, example: dict[str, Any], directory: Path) -> Any:
    import torch

    model.config.use_cache = False
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(model, (), kwargs=example)
    except Exception as error:  # whatever the model's own code raises
        raise UserError(
            f"torch.export refuses {type(model).__name__} of {directory}: {_first_line(error)}",
            "Check the shapes (--max-tokens, --shape), or export the model to ONNX: torch.onnx.export.",
        ) from error


def _labels(model: Any) -> list[str] | None:
    """Class names of a classifier, unless they are the numbers that transformers fills in."""
    names = dict(getattr(model.config, "id2label", None) or {})
    if not type(model).__name__.endswith("Classification") or len(names) < 2:
        return None
    ordered = [str(names[key]) for key in sorted(names)]
    filled_in = [f"LABEL_{index}" for index in range(len(ordered))]
    return None if ordered == filled_in or len(set(ordered)) < len(ordered) else ordered


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers logs, warns and shows progress about what is reported here where it matters."""
    from transformers.utils import logging

    verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
