"""The autotuner: schedules found by measurement, on an emulated core or on boards, and the records that it leaves.

tasks.py      distinct kernels of models, with real operands
image.py      many candidates as one firmware; builder.py and runner.py: the same as MetaSchedule wants them
places.py     where an image runs: QEMU, a serial line, boards behind TVM's RPC tracker
search.py     the search strategies of MetaSchedule and ours; session.py: one tuning run
store.py      what a tuning run has measured, safe against kills; results.py: what is best
"""
