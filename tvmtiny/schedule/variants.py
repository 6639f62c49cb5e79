"""Variants of a family of micro-kernels: what a schedule may choose of them beside the family.

A knob is a macro of `tvmt_knobs.h`. It changes instructions and code size, never bytes. A variant is a family with
settings of its knobs, and has a name that serves as a folder and as part of a C file's name.
"""

from __future__ import annotations

import dataclasses
import re

from tvmtiny.schedule.microkernels import headers as family_headers
from tvmtiny.schedule.microkernels import line_of

KNOBS_FILE = "tvmt_knobs.h"


@dataclasses.dataclass(frozen=True)
class Knob:
    """One choice.

    Attributes:
        macro: of tvmt_knobs.h.
        choices: the rules' choice first.
        columns: layouts of weights (`tvmtiny.kernels.columns`) whose loops read it.
        families: in whose line it makes a difference.
    """

    macro: str
    choices: tuple[int, ...]
    columns: tuple[str, ...]
    families: tuple[str, ...]


KNOBS = {
    "inlined": Knob("TVMT_INLINED", (0, 1), ("plain", "pairs", "wide_pairs"), ("portable",)),
    "pair_steps": Knob("TVMT_PAIR_STEPS", (16, 8, 32, 48), ("pairs", "wide_pairs"), ("dsp",)),
    "single_loads": Knob("TVMT_PAIR_SINGLE_LOADS", (0, 1), ("wide_pairs",), ("wide_weights",)),
    "strip_steps": Knob("TVMT_STRIP_STEPS", (8, 4, 16, 32), ("plain",), ("dsp",)),
    "staged": Knob("TVMT_STRIP_STAGED", (0, 1), ("plain",), ("dual_issue",)),
}


def knobs_of(family: str, columns: str) -> dict[str, Knob]:
    """The knobs that make a difference to a family's products with columns of a layout."""
    line = line_of(family)
    if family == "mve":
        line.remove("dsp")  # its products are its own
    return {
        name: knob
        for name, knob in KNOBS.items()
        if columns in knob.columns and any(part in line for part in knob.families)
    }


@dataclasses.dataclass(frozen=True)
class Variant:
    """A family of micro-kernels and the settings of knobs that differ from the rules' choice, by name in order."""

    family: str
    settings: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, family: str, settings: dict[str, int]) -> Variant:
        """The variant with these settings of knobs."""
        changed = {name: value for name, value in settings.items() if value != KNOBS[name].choices[0]}
        return cls(family, tuple(sorted(changed.items())))

    @classmethod
    def parse(cls, name: str) -> Variant:
        """The variant of a name."""
        family, *settings = name.split("-")
        split = (re.fullmatch(r"([a-z_]+?)_(\d+)", setting) for setting in settings)
        return cls(family, tuple((found[1], int(found[2])) for found in split if found))

    @property
    def name(self) -> str:
        """E.g. `dsp-pair_steps_32`."""
        return "-".join([self.family, *(f"{name}_{value}" for name, value in self.settings)])

    @property
    def symbol(self) -> str:
        """The name as a part of file names and C identifiers."""
        return self.name.replace("-", "_")

    def headers(self, names: set[str]) -> dict[str, str]:
        """File name -> text of the named headers and of everything that they include, with the settings put in."""
        found = family_headers(names, self.family)
        if self.settings:
            text = found[KNOBS_FILE]
            for name, value in self.settings:
                macro = KNOBS[name].macro
                text, count = re.subn(rf"(#define {macro}) \d+", rf"\1 {value}", text)
                assert count == 1, f"{KNOBS_FILE} does not define {macro} once"
            found[KNOBS_FILE] = text
        return found
