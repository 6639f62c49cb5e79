"""`tvmtiny tokenizer`: make tokenizers, turn them into C, check and measure that."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmtiny.cli import console
from tvmtiny.errors import ResultMismatch, UserError

if TYPE_CHECKING:
    from tvmtiny.tokenizer.check import CheckReport
    from tvmtiny.tokenizer.firmware import Measurement
    from tvmtiny.tokenizer.stats import CorpusStats
    from tvmtiny.tokenizer.tables import Tables

app = typer.Typer(help="Make tokenizers, turn them into C, check and measure that.", no_args_is_help=True)

Corpus = Annotated[
    Path,
    typer.Argument(metavar="CORPUS", help="UTF-8 file: a text a line, or LABEL<TAB>TEXT.", dir_okay=False),
]
TokenizerFile = Annotated[Path, typer.Argument(metavar="TOKENIZER", help="tokenizer.json", dir_okay=False)]
MaxTokens = Annotated[
    int | None, typer.Option(help="Cut texts here.", min=1, show_default="where the tokenizer does")
]
WordSymbols = Annotated[
    int | None,
    typer.Option(help="bpe: longest word, in symbols, that work memory holds.", show_default="64 or more"),
]


def _load(path: Path, max_tokens: int | None, word_symbols: int | None) -> tuple[dict[str, Any], Tables]:
    from tvmtiny.tokenizer.spec import parse_spec, read_json
    from tvmtiny.tokenizer.tables import build_tables

    data = read_json(path)
    return data, build_tables(parse_spec(data), max_tokens, word_symbols)


def _texts(path: Path) -> list[bytes]:
    from tvmtiny.tokenizer.corpus import read_corpus

    return [row.text.encode() for row in read_corpus(path)]


def _write_json(path: Path, data: dict[str, Any]) -> None:
    from tvmtiny.codegen.directory import to_json

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json(data), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}.", "Give another file with -o."
        ) from error


def _made(data: dict[str, Any], output: Path, *, as_json: bool) -> None:
    """Write a tokenizer.json and say what it is."""
    from tvmtiny.tokenizer.spec import parse_spec

    spec = parse_spec(data)
    _write_json(output, data)
    if as_json:
        console.show_json({"file": output, "kind": spec.kind, "vocabulary": spec.size})
    else:
        console.show(f"{output}: {spec.kind}, {spec.size:,} pieces")


@app.command("train")
def train_command(
    corpus: Corpus,
    kind: Annotated[str, typer.Option(metavar="wordpiece|bpe|bytes|chars", help="Kind of tokenizer.")],
    vocab: Annotated[int, typer.Option(help="Most pieces, special tokens included.")] = 1024,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.", dir_okay=False)] = Path(
        "tokenizer.json"
    ),
    max_tokens: Annotated[
        int | None, typer.Option(help="Cut texts here.", min=3, show_default="nowhere")
    ] = None,
    cased: Annotated[bool, typer.Option("--cased", help="Keep case and accents (wordpiece, chars).")] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Learn a tokenizer from CORPUS; needs the tokenizers library."""
    from tvmtiny.tokenizer.corpus import read_corpus
    from tvmtiny.tokenizer.train import train

    texts = [row.text for row in read_corpus(corpus)]
    _made(train(texts, kind, vocab, max_tokens=max_tokens, lowercase=not cased), output, as_json=as_json)


@app.command("import")
def import_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="tokenizer.json, vocab.txt, merges.txt (with vocab.json beside it) or a SentencePiece .model.",
            dir_okay=False,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.", dir_okay=False)] = Path(
        "tokenizer.json"
    ),
    cased: Annotated[bool, typer.Option("--cased", help="A vocab.txt with upper case.")] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Make a tokenizer.json of FILE, and check that the device can do it."""
    from tvmtiny.tokenizer.convert import convert

    _made(convert(source, lowercase=not cased), output, as_json=as_json)


@app.command("export")
def export_command(
    tokenizer: TokenizerFile,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Directory to write.", file_okay=False, show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option(help="Prefix of the C names.", show_default="the directory's name")
    ] = None,
    max_tokens: MaxTokens = None,
    word_symbols: WordSymbols = None,
    as_json: console.JsonOption = False,
) -> None:
    """Write the C of a tokenizer: its tables, and the parts of the C library that they need."""
    from tvmtiny.codegen.directory import write_files
    from tvmtiny.codegen.prefix import c_prefix
    from tvmtiny.tokenizer.emit import tokenizer_sources

    _, tables = _load(tokenizer, max_tokens, word_symbols)
    emitted = tokenizer_sources(tables, c_prefix(name if name is not None else output.name))
    try:
        write_files(output, emitted.files)
    except OSError as error:
        raise UserError(f"Cannot write {output}: {error.strerror or error}.", "Give another -o.") from error
    report = {
        "directory": output,
        "sources": list(emitted.sources),
        "include_dirs": [".", "include"],
        **_sizes(tables),
    }
    if as_json:
        console.show_json(report)
        return
    console.show(_size_table(tables))
    console.show(f"C sources: {output}: {', '.join(emitted.sources)}")


def _sizes(tables: Tables) -> dict[str, int]:
    return {
        "vocabulary": tables.spec.size,
        "max_tokens": tables.max_tokens,
        "character_table_bytes": tables.characters.bytes,
        "vocabulary_table_bytes": tables.vocabulary_bytes,
        "work_bytes": 2 * tables.work_words,
    }


def _size_table(tables: Tables) -> Any:
    result = console.table(f"{tables.spec.kind}, {tables.spec.size:,} ids", "", "bytes", right=("bytes",))
    result.add_row("table of characters, in flash", f"{tables.characters.bytes:,}")
    result.add_row("vocabulary, in flash", f"{tables.vocabulary_bytes:,}")
    result.add_row("work memory, in RAM", f"{2 * tables.work_words:,}")
    return result


@app.command("check")
def check_command(
    tokenizer: TokenizerFile,
    corpus: Annotated[
        Path | None, typer.Option(help="UTF-8 file: a text a line, or LABEL<TAB>TEXT.", dir_okay=False)
    ] = None,
    fuzz: Annotated[int, typer.Option(help="Random texts to compare.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Of the random texts.")] = 0,
    word_symbols: WordSymbols = None,
    as_json: console.JsonOption = False,
) -> None:
    """Compare the C, built for this computer, with the tokenizers library."""
    import itertools

    from tvmtiny.tokenizer.check import check
    from tvmtiny.tokenizer.fuzz import fuzz_texts

    if corpus is None and fuzz == 0:
        raise UserError("There is nothing to compare.", "Give --corpus FILE, --fuzz N or both.")
    data, tables = _load(tokenizer, None, word_symbols)
    texts = itertools.chain(_texts(corpus) if corpus else (), fuzz_texts(tables.spec, fuzz, seed))
    with console.progress("comparing"):
        report = check(data, tables, texts, seed=seed)
    _show_check(report, as_json=as_json)


def _show_check(report: CheckReport, *, as_json: bool) -> None:
    if as_json:
        rows = [{**dataclasses.asdict(row), "text": repr(row.text)} for row in report.examples]
        counts = {name: getattr(report, name) for name in ("texts", "equal", "refused", "different")}
        console.show_json({**counts, "rows": rows})
    else:
        console.show(
            f"{report.equal:,} of {report.texts:,} texts have the ids that the tokenizers library gives."
        )
        if report.refused:
            console.show(f"{report.refused:,} have a word that work memory cannot hold (--word-symbols).")
    if report.different:
        first = report.examples[0]
        raise ResultMismatch(
            f"{report.different} texts have other ids; the first is {first.text!r}: {first.found} instead of "
            f"{first.expected}.",
            "This is a defect of tvmtiny, or the library is not the one that its tables were made from: please "
            "report it with the tokenizer.",
        )


@app.command("stats")
def stats_command(
    tokenizer: TokenizerFile,
    corpus: Annotated[
        Path, typer.Option(help="UTF-8 file: a text a line, or LABEL<TAB>TEXT.", dir_okay=False)
    ],
    target: Annotated[str, typer.Option(help="Target whose core QEMU emulates.")] = "qemu-m4",
    max_tokens: MaxTokens = None,
    word_symbols: WordSymbols = None,
    as_json: console.JsonOption = False,
) -> None:
    """Count tokens of a corpus, and measure flash, RAM and instructions on an emulated core."""
    from tvmtiny.tokenizer.stats import corpus_stats, device_stats

    _, tables = _load(tokenizer, max_tokens, word_symbols)
    texts = _texts(corpus)
    with console.progress("counting tokens") as update:
        found = corpus_stats(tables, texts)
        update(f"measuring on {target}")
        measured, measured_bytes = device_stats(tables, texts, target)
    per_byte = measured.instructions / measured_bytes if measured.instructions is not None else None
    if as_json:
        device = {name: value for name, value in dataclasses.asdict(measured).items() if name != "ids"}
        flash = measured.code_bytes + measured.table_bytes
        console.show_json(
            {
                "kind": tables.spec.kind,
                "target": target,
                **dataclasses.asdict(found),
                **device,
                "flash_bytes": flash,
                "instructions_per_byte": per_byte,
            }
        )
        return
    console.show(_stats_table(found), _device_table(measured, target, per_byte))


def _stats_table(found: CorpusStats) -> Any:
    result = console.table("Corpus", "", "count", right=("count",))
    result.add_row("texts", f"{found.texts:,}")
    result.add_row("bytes", f"{found.bytes:,}")
    result.add_row("tokens a text", f"{found.tokens / found.texts:.2f}, at most {found.longest_text_tokens}")
    result.add_row("texts that are cut", f"{100 * found.truncated:.2f} %")
    result.add_row("unknown tokens", f"{100 * found.unknown:.2f} %")
    result.add_row("pieces that occur", f"{found.used_pieces:,} of {found.vocabulary:,}")
    return result


def _device_table(measured: Measurement, target: str, per_byte: float | None) -> Any:
    result = console.table(f"On {target}", "", "needs", right=("needs",))
    result.add_row("flash: code", f"{measured.code_bytes:,} bytes")
    result.add_row("flash: tables", f"{measured.table_bytes:,} bytes")
    result.add_row("RAM: state", f"{measured.state_bytes:,} bytes")
    if measured.stack_bytes is not None:
        result.add_row("stack, with the state on it", f"{measured.stack_bytes:,} bytes")
    if per_byte is not None:
        result.add_row("instructions a byte of text", f"{per_byte:.1f}")
    return result


@app.command("prune")
def prune_command(
    model: Annotated[Path, typer.Argument(help="ONNX file.", exists=True, dir_okay=False)],
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json of the model.", dir_okay=False)],
    corpus: Annotated[
        Path, typer.Option(help="What the model must know: a text a line, or LABEL<TAB>TEXT.", dir_okay=False)
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="Directory for model and tokenizer.", file_okay=False, show_default=False
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="LABEL<TAB>TEXT lines on which the accuracy is measured.",
            dir_okay=False,
            show_default="CORPUS, where it has labels",
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Text file with one class name a line.", dir_okay=False)
    ] = None,
    minimum: Annotated[int, typer.Option(help="Occurrences that keep a piece.", min=1)] = 1,
    drop_characters: Annotated[
        bool, typer.Option("--drop-characters", help="Drop single characters too that do not occur.")
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Shrink vocabulary and embedding table of a trained model to what a corpus uses."""
    from tvmtiny.tokenizer.prune_model import prune_files

    with console.progress(f"pruning {model}"):
        report = prune_files(
            model,
            tokenizer,
            corpus,
            output,
            data=data,
            labels=labels,
            minimum=minimum,
            keep_characters=not drop_characters,
        )
    if as_json:
        console.show_json(dataclasses.asdict(report))
        return
    result = console.table(f"Written to {output}", "", "before", "after", right=("before", "after"))
    result.add_row("pieces", f"{report.vocabulary_before:,}", f"{report.vocabulary_after:,}")
    result.add_row("embedding, values", f"{report.embedding_before:,}", f"{report.embedding_after:,}")
    if report.accuracy_before is not None and report.accuracy_after is not None:
        result.add_row(
            "accuracy", f"{100 * report.accuracy_before:.2f} %", f"{100 * report.accuracy_after:.2f} %"
        )
    console.show(result)
