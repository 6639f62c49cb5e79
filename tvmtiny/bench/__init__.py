"""What `tvmtiny bench` does: run what benchmarks/ describes on emulated cores, and compare.

catalog.py    the benchmarks and the figures of peers, from the TOML files of benchmarks/
kernels.py    measures chains of single micro-kernels
encoders.py   measures whole encoders; models.py makes them
results.py    rows of figures, and the file that holds them
compare.py    what changed between two files
"""
