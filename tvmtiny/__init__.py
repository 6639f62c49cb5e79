"""tvmtiny: small transformers as int8 C with one static arena for Cortex-M microcontrollers.

    import tvmtiny
    artifact = tvmtiny.compile("model.onnx", target="stm32f746", calibration="data.npz", output="build/model")

The compiler is imported on first use, because importing TVM takes about a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tvmtiny.compiler import compile

__version__ = "0.1.0"
__all__ = ["__version__", "compile"]


def __getattr__(name: str) -> Any:
    if name == "compile":
        from tvmtiny.compiler import compile

        return compile
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
