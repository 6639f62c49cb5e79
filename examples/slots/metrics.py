"""What the slots example counts: right intents, and F1 of the spans of the best sequence of tags that makes sense.

tvmtiny evaluate DIR --data test.npz --metric examples/slots/metrics.py:metrics
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tvmtiny.evaluate.metrics import IGNORED, Arrays
from tvmtiny.evaluate.spans import span_f1

TAGS = (Path(__file__).parent / "tags.txt").read_text(encoding="utf-8").split()
"""The tags, in the order of the model's logits: O, and B- and I- of each kind."""


def best_path(scores: np.ndarray, tags: list[str]) -> list[int]:
    """The sequence of tags of the largest sum of scores in which I-x follows only B-x or I-x.

    Logits do as scores: what makes probabilities of them is the same for all tags of a word. With logits of int16 it is
    integer arithmetic: for each word one maximum over all tags, and for each I-x the larger of two.

    Args:
        scores: [words, tags].
    """
    inside = [index for index, tag in enumerate(tags) if tag.startswith("I-")]
    begins = [tags.index(f"B-{tags[index][2:]}") for index in inside]
    sums = scores[0].astype(np.float64)
    sums[inside] = -np.inf
    steps = []
    for row in scores[1:]:
        before = np.full(len(tags), sums.argmax())
        before[inside] = np.where(sums[inside] >= sums[begins], inside, begins)
        steps.append(before)
        sums = sums[before] + row
    path = [int(sums.argmax())]
    for before in reversed(steps):
        path.append(int(before[path[-1]]))
    return path[::-1]


def metrics(outputs: Arrays, targets: Arrays) -> dict[str, float]:
    """`f1` of spans, if there are slots, and the share of right intents.

    Args:
        outputs: `intent` [N, 7], `slots` [N, S, 79].
        targets: `labels` [N], `slots` [N, S], IGNORED where a token begins no word.
    """
    intent = {"intent": float((outputs["intent"].argmax(1) == targets["labels"]).mean())}
    if "slots" not in outputs:
        return intent
    found, wanted = [], []
    for scores, tags in zip(outputs["slots"], targets["slots"], strict=True):
        words = tags != IGNORED
        if words.any():
            found.append([TAGS[tag] for tag in best_path(scores[words], TAGS)])
            wanted.append([TAGS[tag] for tag in tags[words]])
    return {"f1": span_f1(found, wanted), **intent}
