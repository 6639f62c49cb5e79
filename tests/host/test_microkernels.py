"""Every micro-kernel of every family gives the bytes of tvmtiny.quant.integer on the host."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from microkernel_driver.build import FAMILIES, WARNINGS, HostLibrary, write_model
from microkernel_driver.cases import KERNELS, first_difference, kernels_of, pack
from microkernel_driver.generate import GENERATORS, fixed_cases, generator

from tvmtiny.runner import Sample, run
from tvmtiny.runner.process import find_tool

BUILDS = {
    "portable": ("portable", []),
    "portable-narrow": ("portable", ["-DTVMT_NARROW_MULTIPLY=1"]),
    "dsp": ("dsp", []),
    "dual_issue": ("dual_issue", []),
    "wide_weights": ("wide_weights", []),
    "mve": ("mve", []),
}


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HostLibrary]:
    return {
        name: HostLibrary(tmp_path_factory.mktemp(name), family, flags)
        for name, (family, flags) in BUILDS.items()
    }


def test_every_kernel_has_a_generator() -> None:
    assert tuple(GENERATORS) == KERNELS


@pytest.mark.parametrize(
    ("build", "kernel"),
    [(build, kernel) for build, (family, _) in BUILDS.items() for kernel in kernels_of(family)],
)
def test_fixed_cases_give_the_reference_bytes(
    libraries: dict[str, HostLibrary], build: str, kernel: str
) -> None:
    libraries[build].check(fixed_cases(kernel, BUILDS[build][0]))


@pytest.mark.parametrize("kernel", KERNELS)
@given(
    shape=st.tuples(st.integers(0, 40), st.integers(1, 40), st.integers(1, 70)),
    seed=st.integers(0, 2**32 - 1),
    extreme=st.booleans(),
)
def test_any_case_gives_the_reference_bytes(
    libraries: dict[str, HostLibrary], kernel: str, shape: tuple[int, int, int], seed: int, extreme: bool
) -> None:
    for build, library in libraries.items():
        family, _ = BUILDS[build]
        if kernel in kernels_of(family):
            library.check([generator(kernel, family)(np.random.default_rng(seed), *shape, extreme)])


def test_layer_norm_of_the_longest_row(libraries: dict[str, HostLibrary]) -> None:
    rng = np.random.default_rng(1)
    # Row 2 has one value beside equal ones: the largest normalized value that a row can have.
    cases = [GENERATORS["layer_norm_s8"](rng, 3, 1024, 1, extreme) for extreme in (False, True)]
    for library in libraries.values():
        library.check(cases)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_undefined_behaviour_and_no_access_outside_the_operands(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANITIZE", "-fsanitize=address,undefined -fno-sanitize-recover=all")
    arenas = pack(case for kernel in kernels_of(family) for case in fixed_cases(kernel, family))
    samples = [Sample({"cases": np.frombuffer(before, np.uint8)}, 1) for before, _, _ in arenas]
    result = run(write_model(tmp_path, family), "host", samples, target="host")
    for arena, outputs in zip(arenas, result.outputs, strict=True):
        assert not first_difference(arena, outputs["cases"].tobytes())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("language", ["c11", "c++17"])
def test_headers_compile_alone_without_a_warning(family: str, language: str, tmp_path: Path) -> None:
    include = write_model(tmp_path, family).directory / "include"
    compiler = find_tool("g++" if "+" in language else "gcc")
    for header in sorted(include.glob("tvmt_*.h")):
        source = tmp_path / f"{header.stem}.{'cpp' if '+' in language else 'c'}"
        source.write_text(f'#include "{header.name}"\n#include "{header.name}"\nextern int filled;\n')
        command = [compiler, f"-std={language}", "-fsyntax-only", *WARNINGS, f"-I{include}", str(source)]
        subprocess.run(command, check=True)
