"""What a compiled model is worth and what it costs: metrics, latency, memory and energy, on one or several targets.

`load_dataset`, `metrics_of` and `evaluate` are the steps of the command `tvmtiny evaluate`.
"""

from tvmtiny.evaluate.data import Dataset, load_dataset
from tvmtiny.evaluate.measure import Evaluation, Spread, evaluate
from tvmtiny.evaluate.metrics import Metrics, metrics_of

__all__ = ["Dataset", "Evaluation", "Metrics", "Spread", "evaluate", "load_dataset", "metrics_of"]
