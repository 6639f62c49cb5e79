"""`tvmtiny doctor`: what is installed, what is missing, how to get it."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Callable

import typer

from tvmtiny.cli import console

TIMEOUT_S = 60
APT = "sudo apt-get install --no-install-recommends {}"


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the report: `found` is None where nothing is; `problem` says what is wrong with what is."""

    name: str
    needed_for: str
    found: str | None
    remedy: str
    problem: str = ""
    required: bool = True

    @property
    def ok(self) -> bool:
        """Whether it is there and usable."""
        return self.found is not None and not self.problem


def _output(*command: str, stdin: str = "") -> str | None:
    """Standard output of a command, or None where it is missing, fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        result = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return result.stdout


def _first_line(text: str | None) -> str | None:
    return text.splitlines()[0].strip() if text else None


def _package(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _pinned(name: str) -> str | None:
    """The exact version of package `name` that tvmtiny's own metadata asks for."""
    from importlib import metadata

    try:
        requirements = metadata.requires("tvmtiny") or []
    except metadata.PackageNotFoundError:
        return None
    for requirement in requirements:
        match = re.match(rf"{re.escape(name)}==([^\s;]+)", requirement)
        if match:
            return match[1]
    return None


def _check_python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    problem = "" if (3, 11) <= sys.version_info[:2] <= (3, 13) else "3.11, 3.12 or 3.13 is needed"
    return Check("Python", "everything", found, "Install Python 3.13 and make a new .venv with it.", problem)


def _check_pinned(package: str) -> Check:
    found, pinned = _package(package), _pinned(package)
    problem = f"{pinned} is needed" if found and pinned and found != pinned else ""
    remedy = f"{sys.executable} -m pip install {package}=={pinned}" if pinned else "Install tvmtiny with pip."
    return Check(package, "compile", found, remedy, problem)


def _check_tvm_loads() -> Check:
    """Import TVM in a process of its own: a broken shared library ends the process."""
    found = _first_line(_output(sys.executable, "-c", "import tvm; print(tvm.__version__)"))
    remedy = f"See what `{sys.executable} -c 'import tvm'` says."
    return Check("TVM loads", "compile", found and f"reports {found}", remedy)


def _check_host_gcc() -> Check:
    remedy = APT.format("gcc libc6-dev")
    return Check("gcc", "run --on host", _first_line(_output("gcc", "--version")), remedy)


def _check_cross_gcc() -> Check:
    found = _first_line(_output("arm-none-eabi-gcc", "--version"))
    return Check("arm-none-eabi-gcc", "run --on qemu", found, APT.format("gcc-arm-none-eabi"))


def _check_newlib() -> Check:
    source = "#include <_newlib_version.h>\n"
    macros = _output("arm-none-eabi-gcc", "-E", "-dM", "-x", "c", "-", stdin=source) or ""
    match = re.search(r'#define _NEWLIB_VERSION "([^"]+)"', macros)
    return Check("newlib", "run --on qemu", match and match[1], APT.format("libnewlib-arm-none-eabi"))


def _needed_machines() -> set[str]:
    from tvmtiny.target import list_targets

    return {target.qemu_machine for target in list_targets() if target.qemu_machine}


def _check_qemu() -> Check:
    remedy = APT.format("qemu-system-arm")
    version = _first_line(_output("qemu-system-arm", "--version"))
    if version is None:
        return Check("qemu-system-arm", "run --on qemu", None, remedy)
    listing = _output("qemu-system-arm", "-machine", "help") or ""
    machines = {line.split()[0] for line in listing.splitlines() if line.strip()}
    missing = sorted(_needed_machines() - machines)
    problem = f"it lacks the machines {', '.join(missing)}" if missing else ""
    return Check("qemu-system-arm", "run --on qemu", version, "QEMU 7.2 or later is needed.", problem)


def _check_torch() -> Check:
    remedy = f"{sys.executable} -m pip install torch=={_pinned('torch')}"
    return Check("torch", "training, torch.export models", _package("torch"), remedy, required=False)


def _check_tokenizers() -> Check:
    remedy = f"{sys.executable} -m pip install tokenizers"
    return Check("tokenizers", "tokenizer train and check", _package("tokenizers"), remedy, required=False)


def _check_flashing() -> Check:
    from tvmtiny.boards.flash import TOOLS

    found = [name for name, tool in TOOLS.items() if shutil.which(tool.program)]
    return Check(
        "flashing tools",
        "board flash (one will do)",
        ", ".join(found) or None,
        APT.format("openocd"),
        required=False,
    )


CHECKS: tuple[Callable[[], Check], ...] = (
    _check_python,
    lambda: _check_pinned("apache-tvm"),
    lambda: _check_pinned("apache-tvm-ffi"),
    _check_tvm_loads,
    _check_host_gcc,
    _check_cross_gcc,
    _check_newlib,
    _check_qemu,
    _check_torch,
    _check_tokenizers,
    _check_flashing,
)


def _show(checks: list[Check]) -> None:
    from rich.markup import escape

    table = console.table("Environment", "", "what", "found", "needed for")
    for check in checks:
        mark = (
            "[green]ok[/]"
            if check.ok
            else "[bold red]missing[/]"
            if check.required
            else "[yellow]optional[/]"
        )
        if check.problem:
            mark = "[bold red]wrong[/]"
        found = " - ".join(filter(None, (check.found, check.problem))) or "not found"
        table.add_row(mark, check.name, escape(found), check.needed_for)
    console.show(table)
    for check in checks:
        if not check.ok:
            console.show(f"[bold]{check.name}[/]: {escape(check.remedy)}")


def command(as_json: console.JsonOption = False) -> None:
    """Show what is installed, what is missing and how to get it."""
    with console.progress("looking around"):
        checks = [check() for check in CHECKS]
    ok = all(check.ok for check in checks if check.required)
    if as_json:
        rows = [{**dataclasses.asdict(check), "ok": check.ok} for check in checks]
        console.show_json({"ok": ok, "rows": rows})
    else:
        _show(checks)
    if not ok:
        raise typer.Exit(1)
