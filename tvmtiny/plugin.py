"""What tvmtiny adds to TVM: importing this module registers it.

- the Relax operators `relax.tvmtiny.*`
- the Relax pipeline: `tvm.relax.get_pipeline("tvmtiny")`
- a target tag for every board: `tvm.target.Target("tvmtiny/stm32f746")`
"""

from __future__ import annotations

from tvmtiny.kernels import kernels
from tvmtiny.passes.pipeline import tvmtiny_pipeline
from tvmtiny.target import register_tags

__all__ = ["tvmtiny_pipeline"]

kernels()
register_tags()
