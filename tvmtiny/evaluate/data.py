"""What a model is evaluated on: samples of an NPZ file, recordings of one, or the texts of a table; with the truth."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmtiny.artifact import Artifact
from tvmtiny.errors import UserError
from tvmtiny.frontend.data import LABELS_KEY, LENGTH_KEY, load_npz, reference_samples, samples_of
from tvmtiny.frontend.names import listed, suggestion

Array = npt.NDArray[Any]

SAMPLES, TEXTS, RECORDINGS = "samples", "texts", "recordings"
_TEXT_SUFFIXES = (".tsv", ".txt")
_TEXT_COLUMN = "text"
_LABEL_COLUMNS = (LABELS_KEY, "label", "intent", "class")
_TABLE_REMEDY = "Give lines LABEL<TAB>TEXT, or columns that the first line names, `text` among them."


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Samples with what is known of them.

    Attributes:
        kind: SAMPLES (inputs of the model), TEXTS or RECORDINGS, which the device turns into inputs.
        items: `runner.Sample`, str, or int16 (N,) or (N, channels), accordingly.
        targets: by name, one entry a sample; `labels` are class numbers of the first output.
        inputs: the model's inputs in real numbers, by name, where the file has them: what a float model takes.
        source: how messages call it.
        digest: SHA-256 of the file.
    """

    kind: str
    items: Sequence[Any]
    targets: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    inputs: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    source: str = "the data"
    digest: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def only(self, index: int) -> Dataset:
        """The sample `index` alone, without its targets."""
        return dataclasses.replace(self, items=[self.items[index]], targets={}, inputs={})

    def limited(self, count: int | None) -> Dataset:
        """The first `count` samples; all for None."""
        targets = {name: values[:count] for name, values in self.targets.items()}
        inputs = {name: values[:count] for name, values in self.inputs.items()}
        return dataclasses.replace(self, items=self.items[:count], targets=targets, inputs=inputs)


def load_dataset(artifact: Artifact, path: Path | str) -> Dataset:
    """Read a file for a compiled model.

    Args:
        path: `.npz` with the model's inputs, or `samples` for a model with a front end, and targets under further
            keys; or a table `.tsv` for a model with a tokenizer: LABEL<TAB>TEXT, or columns that its first line names,
            `text` among them.

    Raises:
        UserError: a file that does not fit the model.
    """
    from tvmtiny.features.recordings import has_samples

    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}.", "Give data with --data FILE.npz or FILE.tsv.")
    if path.suffix.lower() in _TEXT_SUFFIXES:
        found = _read_table(artifact, path)
    elif artifact.metadata.get("features") and has_samples(path):
        found = _read_recordings(artifact, path)
    elif path.resolve() == artifact.reference_inputs.resolve():
        found = Dataset(SAMPLES, reference_samples(artifact), source=str(path))
    else:
        found = dataset_of(artifact, load_npz(path), source=str(path))
    return dataclasses.replace(found, digest=hashlib.sha256(path.read_bytes()).hexdigest())


def dataset_of(artifact: Artifact, contents: Mapping[str, Array], *, source: str = "the data") -> Dataset:
    """Arrays by key, as an NPZ file has them: the model's inputs, and targets under all other keys.

    Raises:
        UserError: arrays that do not fit the model.
    """
    length_input = artifact.metadata.get("length_input")
    known = {LENGTH_KEY, *(info.name for info in artifact.inputs)} | (
        {length_input} if length_input else set()
    )
    given = {name: np.asarray(values) for name, values in contents.items() if name in known}
    targets = {name: np.asarray(values) for name, values in contents.items() if name not in known}
    if length_input and not {LENGTH_KEY, length_input} & set(given):
        _refuse_misspelt(source, targets, [LENGTH_KEY, length_input])
    samples = samples_of(artifact, given, source=source)
    for name, values in targets.items():
        if values.ndim == 0 or len(values) != len(samples):
            raise UserError(
                f"'{name}' in {source} has the shape {values.shape}; there are {len(samples)} samples.",
                "Give one entry a sample, along the first axis.",
            )
    inputs = {info.name: given[info.name] for info in artifact.inputs}
    return Dataset(SAMPLES, samples, _numbered(artifact, targets, source), inputs, source)


def _refuse_misspelt(source: str, targets: Mapping[str, Array], absent: Sequence[str]) -> None:
    """A mask under a wrong name would silently be taken for a target, and every token for present."""
    for name in targets:
        near = suggestion(name, absent) if absent else ""
        if near.startswith("Did you mean") and name != LABELS_KEY:
            raise UserError(f"{source} has '{name}', which is no input of the model.", f"{near} Rename it.")


def _numbered(artifact: Artifact, targets: Mapping[str, Array], source: str) -> dict[str, Array]:
    """Targets with names of classes replaced by their numbers, where the model knows these names."""
    outputs = {info.name: info.labels for info in artifact.outputs}
    names = {LABELS_KEY: artifact.labels, **outputs}
    return {
        name: _numbers(values, names[name], name, source)
        if name in names and values.dtype.kind == "U"
        else values
        for name, values in targets.items()
    }


def _numbers(values: Array, classes: Sequence[str], name: str, source: str) -> Array:
    number = {label: index for index, label in enumerate(classes)}
    unknown = sorted({str(value) for value in values.reshape(-1)} - set(number))
    if unknown:
        raise UserError(
            f"{source} has the class {listed(unknown[:3])} under '{name}', which the model does not know.",
            suggestion(unknown[0], list(classes)) if classes else "Compile the model with --labels FILE.",
        )
    return np.array([number[str(value)] for value in values.reshape(-1)]).reshape(values.shape)


def _read_table(artifact: Artifact, path: Path) -> Dataset:
    from tvmtiny.frontend.text_file import read_lines

    rows = [line.split("\t") for line in read_lines(path) if line.strip()]
    if not rows:
        raise UserError(f"{path} holds no text.", _TABLE_REMEDY)
    if _TEXT_COLUMN in rows[0]:
        names, *rows = rows
    else:
        names = [_TEXT_COLUMN] if len(rows[0]) == 1 else [LABELS_KEY, _TEXT_COLUMN]
    short = next((row for row in rows if len(row) < len(names)), None)
    if short is not None or not rows:
        raise UserError(f"{path} lacks a column, or any text: {short or names}.", _TABLE_REMEDY)
    columns = {name: np.array([row[at] for row in rows]) for at, name in enumerate(names)}
    texts = columns.pop(_TEXT_COLUMN).tolist()
    named = {LABELS_KEY if name in _LABEL_COLUMNS else name: v for name, v in columns.items()}
    return Dataset(TEXTS, texts, _numbered(artifact, named, str(path)), source=str(path))


def _read_recordings(artifact: Artifact, path: Path) -> Dataset:
    from tvmtiny.features.device_run import front_end
    from tvmtiny.features.recordings import COUNTS_KEY, SAMPLES_KEY, cut, read_recordings

    about = front_end(artifact)
    whole = read_recordings(path, about["channels"])
    parts = [list(cut(item, about, has_length=artifact.has_length)) for item in whole]
    owner = [index for index, group in enumerate(parts) for _ in group]
    contents = {name: v for name, v in load_npz(path).items() if name not in {SAMPLES_KEY, COUNTS_KEY}}
    for name, values in contents.items():
        if values.ndim == 0 or len(values) != len(whole):
            raise UserError(
                f"'{name}' in {path} has the shape {values.shape}; there are {len(whole)} recordings.",
                "Give one entry a recording.",
            )
    targets = {name: values[owner] for name, values in contents.items()}
    items = [part.samples for group in parts for part in group]
    return Dataset(RECORDINGS, items, _numbered(artifact, targets, str(path)), source=str(path))
