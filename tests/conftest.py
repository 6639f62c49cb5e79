"""What all tests share: which of them this machine can run, and how hard hypothesis searches."""

from __future__ import annotations

import os
import shutil

# One thread a worker: pytest-xdist already keeps every core busy. Set before NumPy, TVM or torch is imported.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TVM_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

EMULATION_TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm")

# `make test` must give the same verdict every time; HYPOTHESIS_PROFILE=explore looks for what it has missed.
_SLOW_IS_FINE = [HealthCheck.too_slow]
settings.register_profile(
    "fixed", derandomize=True, deadline=None, max_examples=50, suppress_health_check=_SLOW_IS_FINE
)
settings.register_profile("explore", deadline=None, max_examples=2000, suppress_health_check=_SLOW_IS_FINE)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def _why_not_qemu() -> str:
    """Why firmware cannot be run here; empty where it can, or where `make test` has promised it."""
    if os.environ.get("TVMTINY_REQUIRE_TOOLS"):
        return ""
    missing = [tool for tool in EMULATION_TOOLS if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not installed (see tvmtiny doctor)" if missing else ""


def _why_not_board() -> str:
    return "" if os.environ.get("TVMTINY_BOARD") else "no board: set TVMTINY_BOARD to its serial port"


def _why_not_zephyr() -> str:
    """Zephyr is nobody's to install on the way: its tests run where a user has it, with cmake and ninja."""
    if not os.environ.get("ZEPHYR_BASE"):
        return "no Zephyr: set ZEPHYR_BASE to its directory"
    missing = [tool for tool in ("cmake", "ninja", "dtc", *EMULATION_TOOLS) if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not installed" if missing else ""


def _why_not_ray() -> str:
    return "" if os.environ.get("TVMTINY_RAY") else "set TVMTINY_RAY, and install tvmtiny[ray]"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run."""
    reasons = {
        "qemu": _why_not_qemu(),
        "board": _why_not_board(),
        "ray": _why_not_ray(),
        "zephyr": _why_not_zephyr(),
    }
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
