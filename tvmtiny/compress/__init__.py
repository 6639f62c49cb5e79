"""From a trained torch module to a smaller one: distil, prune, factorize, quantize, cluster. Needs torch."""

from __future__ import annotations

import importlib.util

from tvmtiny.errors import EnvironmentProblem

_PACKAGES = ("torch", "torch_pruning", "onnxscript", "onnxruntime", "pydantic")


def require_packages() -> None:
    """Raise EnvironmentProblem, with what to install, when a package that compression needs is missing."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(
            f"Compression needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            "pip install 'tvmtiny[train]'",
        )
