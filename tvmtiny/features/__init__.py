"""Front ends for the device: PCM or raw sensor samples in, the int8 rows of a model's input out, in integers.

    from tvmtiny.features.audio import audio_rows
    from tvmtiny.features.spec import load_spec
    from tvmtiny.features.tables import build_tables

    tables = build_tables(load_spec("features.toml"), scale, zero_point)
    rows = audio_rows(tables, pcm)

spec.py reads and checks a description, reference.py computes it in float64, tables.py makes integers of it.
audio.py and sensor.py compute with these what the C does, bit for bit; emit.py writes the C tables, attach.py adds
them to a model.
The C that uses them lies in microtvm_projects/common: tvmt_audio*, tvmt_fft*, tvmt_sensor*, tvmt_scale*, tvmt_rows*.
"""
