"""Write the model directory: everything beside its final place first, then one rename."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tvmtiny.artifact import METADATA_FILE
from tvmtiny.errors import UserError

BUILD_DIRECTORY = "build"
"""Where in a model directory programs are built: no part of the compiled model, and replaced with it."""

_REMEDY = "Give another output directory with -o."


def check_output(directory: Path) -> None:
    """Refuse, with a UserError, an output place that cannot be written or holds more than a compiled model."""
    place = _resolved(directory)
    try:
        if place.is_dir():
            _check_replaceable(directory, place)
        elif place.exists():
            raise UserError(f"{directory} exists and is not a directory.", _REMEDY)
        check_writable(next(parent for parent in place.parents if os.path.lexists(parent)))
    except OSError as error:
        raise _cannot_write(directory, error) from error


def check_writable(directory: Path) -> None:
    """Raise OSError when no file can be made in a directory; leaves none."""
    with tempfile.TemporaryFile(dir=directory):
        pass


@contextlib.contextmanager
def replaced_directory(directory: Path) -> Iterator[Path]:
    """A temporary directory that takes the place of `directory` when the block ends without an error.

    A link stays, what it leads to is replaced. After an error everything is as before.

    Raises:
        UserError: the place cannot be written, or by now holds something else than a compiled model.
    """
    place = _resolved(directory)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".tvmtiny-", dir=place.parent))
    except OSError as error:
        raise _cannot_write(directory, error) from error
    try:
        yield temporary
        check_output(directory)  # again: compiling takes a while
        try:
            temporary.chmod(0o755 & ~_umask())
            _take_place(temporary, place)
        except OSError as error:
            raise _cannot_write(directory, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _resolved(directory: Path) -> Path:
    # Not Path.resolve(), which raises RuntimeError at a circle of links before Python 3.13.
    return Path(os.path.realpath(directory))


def _cannot_write(directory: Path, error: OSError) -> UserError:
    return UserError(f"Cannot write {directory}: {error.strerror or error}.", _REMEDY)


def _check_replaceable(directory: Path, place: Path) -> None:
    """Raise UserError unless a directory is empty or nothing but a compiled model."""
    here = Path.cwd()
    if place in (here, *here.parents):
        raise UserError(f"{directory} holds the current directory and cannot be replaced.", _REMEDY)
    files = list(_files(place))
    known = _model_files(place)
    foreign = sorted(file for file in files if file not in known)
    if foreign and not known:
        raise UserError(
            f"{directory} is not empty and holds no compiled model, but {foreign[0]}.",
            "Give an empty or new directory with -o.",
        )
    if foreign:
        raise UserError(
            f"{directory} holds {foreign[0]}, which is no part of the compiled model there.",
            f"Move the file away. {_REMEDY}",
        )


def _files(place: Path) -> Iterator[str]:
    """Relative paths of all files and links in a directory but those of builds."""
    for root, folders, files in os.walk(place, onerror=_raise):
        relative = Path(root).relative_to(place)
        links = [folder for folder in folders if (Path(root) / folder).is_symlink()]
        yield from ((relative / name).as_posix() for name in (*files, *links))
        if root == str(place) and BUILD_DIRECTORY not in links:
            folders[:] = [folder for folder in folders if folder != BUILD_DIRECTORY]


def _raise(error: OSError) -> None:
    raise error


def _model_files(place: Path) -> set[str]:
    """Relative paths of the files of a compiled model, of any version; empty when there is none."""
    try:
        data = json.loads((place / METADATA_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return set()
    fields = {"schema": int, "name": str, "files": dict}
    if not isinstance(data, dict) or not all(isinstance(data.get(key), kind) for key, kind in fields.items()):
        return set()
    return {METADATA_FILE, *data["files"]}


def _take_place(new: Path, place: Path) -> None:
    """Rename `new` to `place` and remove what was there; what was there stays if that fails."""
    if not place.exists():
        new.rename(place)
        return
    old = new.with_name(f"{new.name}-old")
    place.rename(old)
    try:
        new.rename(place)
    except BaseException:
        old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_files(directory: Path, files: dict[str, str]) -> None:
    """Write text files, given by relative path."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside, then rename: it is whole or as it was. Makes its directory; raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def to_json(data: dict[str, Any]) -> str:
    """JSON with stable order and a final newline: the same input gives the same bytes."""
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    # Names of files that are not UTF-8 hold lone surrogates; Python writes them as JSON does.
    return text.encode("utf-8", "backslashreplace").decode()
