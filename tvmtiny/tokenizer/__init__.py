"""Tokenizers for the device: tokenizer.json in, C tables out, the ids of the tokenizers library.

    from tvmtiny.tokenizer.spec import load_spec
    from tvmtiny.tokenizer.tables import build_tables
    from tvmtiny.tokenizer.emit import tokenizer_sources

    files = tokenizer_sources(build_tables(load_spec("tokenizer.json")), "intent").files

spec.py reads and checks, tables.py packs, emit.py writes; the C that uses the tables lies in
microtvm_projects/common/tvmt_tokenizer*. Only library.py imports the tokenizers library.
"""
