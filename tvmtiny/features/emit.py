"""The C of a front end's tables, and of what a model takes from them."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmtiny import __version__
from tvmtiny.codegen.c_sources import LINE, c_values
from tvmtiny.features.tables import LOG2, AudioTables, ScaleRows, Tables
from tvmtiny.resources import data_dir
from tvmtiny.schedule.microkernels import headers
from tvmtiny.templates import jinja_environment

Array = npt.NDArray[Any]

PADDING = {"none": "TVMT_PAD_NONE", "zero": "TVMT_PAD_ZERO", "reflect": "TVMT_PAD_REFLECT"}


@dataclasses.dataclass(frozen=True)
class Window:
    """The rows that an input of a model takes.

    Attributes:
        rows: of a full window. group: of them that make a token. stride: from one full window to the next.
    """

    rows: int
    group: int
    stride: int


@dataclasses.dataclass(frozen=True)
class FeatureSources:
    """C files of a front end, by path relative to where they go; headers other than its own are in include/."""

    files: dict[str, str]
    sources: tuple[str, ...]


def feature_sources(tables: Tables, window: Window, name: str, family: str) -> FeatureSources:
    """The generated tables of a front end and the parts of the C library that they need.

    Args:
        name: C prefix.
        family: of micro-kernels, whose arithmetic is used.
    """
    common = data_dir("microtvm_projects") / "common"
    library = library_sources(tables)
    templates, context = jinja_environment("tvmtiny.features"), features_context(tables, window, name)
    files = {
        f"{name}_features.{kind}": templates.get_template(f"features.{kind}.j2").render(context)
        for kind in "hc"
    }
    own = ("tvmt_audio", "tvmt_fft") if isinstance(tables, AudioTables) else ("tvmt_sensor",)
    files |= {
        f"include/{file}.h": (common / f"{file}.h").read_text("utf-8")
        for file in (*own, "tvmt_rows", "tvmt_scale")
    }
    files |= {f"include/{file}": text for file, text in headers({"tvmt_arith"}, family).items()}
    files |= {source: (common / source).read_text("utf-8") for source in library}
    return FeatureSources(files, (f"{name}_features.c", *library))


def state_bytes(tables: Tables, window: Window) -> int:
    """RAM of `<name>_features`, at most: pointers may be of 64 bits."""
    kept = window.rows * tables.spec.columns
    if not isinstance(tables, AudioTables):
        return -(-(kept + 24) // 8) * 8
    spec = tables.spec
    return -(-(8 * (spec.fft // 2 + 1) + 2 * (spec.window + 1) + 2 * spec.mels + kept + 96) // 8) * 8


def library_sources(tables: Tables) -> tuple[str, ...]:
    """The C files of the library that these tables name."""
    if not isinstance(tables, AudioTables):
        return ("tvmt_rows.c", "tvmt_scale_each.c", "tvmt_sensor.c")
    radices = sorted({stage.radix for stage in tables.transform.stages})
    return (
        *("tvmt_audio.c", "tvmt_audio_mel.c", "tvmt_audio_power.c"),
        *(f"tvmt_fft_radix{radix}.c" for radix in radices),
        *("tvmt_rows.c", f"{tables.scale.function}.c"),
    )


def features_context(tables: Tables, window: Window, name: str) -> dict[str, Any]:
    """What the templates take."""
    audio = isinstance(tables, AudioTables)
    arrays = _scale_arrays(tables.scale) + (_audio_arrays(tables) if isinstance(tables, AudioTables) else [])
    return {
        "name": name,
        "NAME": name.upper(),
        "version": __version__,
        "audio": audio,
        "spec": tables.spec,
        "columns": tables.spec.columns,
        "window": window,
        "arrays": arrays,
        "scale": _scale_fields(
            tables.scale, tables.spec.mels if isinstance(tables, AudioTables) else tables.spec.columns
        ),
        "tables": _audio_fields(tables) if isinstance(tables, AudioTables) else {},
        "pad": PADDING[tables.spec.pad] if isinstance(tables, AudioTables) else "",
    }


def _array(ctype: str, symbol: str, values: Sequence[int] | Array) -> dict[str, Any]:
    array = np.asarray(values)
    if ctype == "int64_t":
        initializer = "\n".join(f"    INT64_C({value})," for value in array.tolist())
    else:
        initializer = c_values(array.astype(ctype.removesuffix("_t")))
    return {"ctype": ctype, "symbol": symbol, "count": array.size, "initializer": initializer}


def _turns(symbol: str, cosine: Array, sine: Array) -> dict[str, Any]:
    """Pairs of cosine and sine as tvmt_complex."""
    limit = "(-2147483647 - 1)"
    pairs = [
        ", ".join(limit if value == -(2**31) else str(value) for value in pair)
        for pair in zip(cosine.reshape(-1).tolist(), sine.reshape(-1).tolist(), strict=True)
    ]
    return {"ctype": "tvmt_complex", "symbol": symbol, "count": len(pairs), "initializer": _braces(pairs)}


def _braces(rows: Sequence[str]) -> str:
    """Structures between braces, as many as fit a line."""
    words = [f"{{{row}}},".replace(" ", "\x00") for row in rows]
    lines = textwrap.fill(
        " ".join(words), LINE, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
    )
    return lines.replace("\x00", " ")


def _scale_arrays(rows: ScaleRows) -> list[dict[str, Any]]:
    return [
        _array("int16_t", "scale_factor", rows.factor),
        _array("int64_t", "scale_bias", rows.bias),
        _array("uint8_t", "scale_shift", rows.shift),
    ]


def _scale_fields(rows: ScaleRows, values: int) -> dict[str, Any]:
    return {
        "factor": "scale_factor",
        "bias": "scale_bias",
        "shift": "scale_shift",
        "values": values,
        "columns": rows.columns,
        "apart": rows.apart,
    }


def _audio_arrays(tables: AudioTables) -> list[dict[str, Any]]:
    transform, mel = tables.transform, tables.mel
    return [
        _turns("turns", transform.cosine[1:], transform.sine[1:]),
        *(
            _turns(f"turns_{stage.m}", stage.cosine[1:, 1:], stage.sine[1:, 1:])
            for stage in transform.stages
            if stage.m > 1
        ),
        _array("uint16_t", "order", transform.order),
        _array("int32_t", "window", tables.window),
        _array("uint32_t", "log2_table", LOG2),
        _array("uint16_t", "mel_weight", mel.weight),
        _array("uint16_t", "mel_bins", mel.bins),
        *([_array("int32_t", "mel_offset", mel.offset)] if len(mel.offset) > 1 else []),
        {
            "ctype": "tvmt_fft_stage",
            "symbol": "stages",
            "count": len(transform.stages),
            "initializer": "\n".join(
                f"    {{&tvmt_fft_radix{stage.radix}, {f'turns_{stage.m}' if stage.m > 1 else 'NULL'}, {stage.m}}},"
                for stage in transform.stages
            ),
        },
    ]


def _audio_fields(tables: AudioTables) -> dict[str, Any]:
    mel, spec = tables.mel, tables.spec
    offsets = ("mel_offset", 0) if len(mel.offset) > 1 else ("NULL", int(mel.offset[0]))
    numbers = (*offsets, mel.floor, mel.centre, mel.first, spec.mels, mel.shift)
    return {
        "turns": "turns",
        "order": "order",
        "stages": "stages",
        "window": "window",
        "log2": "log2_table",
        "mel": f"{{mel_weight, mel_bins, {', '.join(map(str, numbers))}}}",
        "scale": None,
        "finish": f"&{tables.scale.function}",
        "length": spec.window,
        "fft": spec.fft,
        "hop": spec.hop,
        "pre_emphasis": tables.pre_emphasis,
        "n_stages": len(tables.transform.stages),
        "peak_bits": tables.transform.peak_bits,
        "padding": PADDING[spec.pad],
    }
