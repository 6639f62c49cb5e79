"""Kinds of project: what builds, flashes and reaches a model's program, behind one interface.

A kind is a folder of microtvm_projects/ with templates, C files and `handler.py`; base.py says what that defines. A
further kind is a further folder.
"""

from tvmtiny.project.base import Kind, KindInfo
from tvmtiny.project.kinds import load_kind, load_make_kind, project_kinds

__all__ = ["Kind", "KindInfo", "load_kind", "load_make_kind", "project_kinds"]
