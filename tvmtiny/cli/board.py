"""`tvmtiny board`: what is plugged in, flash it, run on it, time it, listen to it, look into it."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmtiny.cli import console
from tvmtiny.cli import run as run_command
from tvmtiny.cli.project import Model, TargetOption, TextOption, load_model, target_of
from tvmtiny.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tvmtiny.artifact import Artifact
    from tvmtiny.link.client import Client
    from tvmtiny.runner import Sample
    from tvmtiny.target import Target

PortOption = Annotated[
    str | None,
    typer.Option(help="Serial port; found by the target's USB identity if not given.", show_default=False),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--input",
        help="NPZ file as for `run`; DIR/reference/inputs.npz if not given.",
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]
TimeoutOption = Annotated[float, typer.Option(help="Seconds until a run counts as hung.", min=1)]

app = typer.Typer(help="Real boards: list, flash, run, benchmark, monitor, dump.", no_args_is_help=True)


@app.command("list")
def list_boards(as_json: console.JsonOption = False) -> None:
    """Show serial ports and debug probes, and which target each may be."""
    from tvmtiny.boards.usb import list_devices

    devices = list_devices()
    if as_json:
        console.show_json({"rows": [dataclasses.asdict(device) for device in devices]})
        return
    if not devices:
        console.show("No serial port and no debug probe is plugged in.")
        return
    table = console.table("Plugged in", "port", "USB", "what", "serial number", "may be")
    for device in devices:
        table.add_row(device.port, device.usb, device.what, device.serial, ", ".join(device.targets))
    console.show(table)


@app.command("serve")
def serve(
    tracker: Annotated[str, typer.Option(metavar="HOST:PORT", help="TVM's RPC tracker.")],
    key: Annotated[str, typer.Option(help="Name of the target whose board this is.")],
    on: Annotated[
        str, typer.Option(metavar="PLACE", help="Where to run what comes: serial:PORT, or qemu.")
    ] = "qemu",
    host: Annotated[str, typer.Option(help="Address of this machine for those who tune.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="First port to try.", min=1024)] = 9200,
) -> None:
    """Measure candidates for `tvmtiny tune --on rpc:HOST:PORT`, until interrupted."""
    from tvmtiny.tune.rpc import serve as serve_board

    console.message(f"{key} on {on} for the tracker {tracker}; Ctrl-C ends it.")
    serve_board(tracker, key, on, host=host, port=port)


@app.command("flash")
def flash(
    directory: Model,
    target: TargetOption = None,
    tool: Annotated[
        str | None,
        typer.Option(help="openocd, pyocd, st-flash, picotool, jlink or uf2.", show_default=False),
    ] = None,
    text: TextOption = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="The arena can be read over the link: it holds raw inputs.")
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Build the model's program and put it into the board's flash."""
    from tvmtiny.project.api import ProjectAPI

    artifact = load_model(directory, text=text)
    chosen = target_of(artifact, target)
    api = ProjectAPI(chosen.project)
    with console.progress("building") as update:
        project = api.generate_project(
            artifact, chosen, artifact.directory / "build" / chosen.name, debug=debug
        )
        api.build()
        update("flashing")
        api.flash(tool)
    if as_json:
        console.show_json({"target": chosen.name, "elf": project.elf, "model_id": project.model_id})
    else:
        console.show_plain(f"{chosen.name} has {artifact.name} ({project.model_id}).")


@app.command("run")
def run(
    directory: Model,
    port: PortOption = None,
    target: TargetOption = None,
    data: DataOption = None,
    repeat: Annotated[int, typer.Option(help="Runs of each sample.", min=1)] = 1,
    power: run_command.PowerOption = None,
    voltage: run_command.VoltageOption = None,
    power_channel: run_command.ChannelOption = None,
    timeout: TimeoutOption = 60,
    as_json: console.JsonOption = False,
) -> None:
    """Run samples on the board that is plugged in, as `tvmtiny run --on serial:PORT` does."""
    from tvmtiny.artifact import Artifact

    artifact = Artifact.load(directory)
    chosen = target_of(artifact, target)
    run_command.command(
        directory,
        data=data or artifact.reference_inputs,
        where=f"serial:{port or find_port(chosen)}",
        repeat=repeat,
        power=power,
        voltage=voltage,
        power_channel=power_channel,
        timeout=timeout,
        target_name=chosen.name,
        as_json=as_json,
    )


@app.command("benchmark")
def benchmark(
    directory: Model,
    port: PortOption = None,
    target: TargetOption = None,
    data: DataOption = None,
    runs: Annotated[int, typer.Option(help="How many.", min=1)] = 100,
    timeout: TimeoutOption = 60,
    as_json: console.JsonOption = False,
) -> None:
    """Time runs of one sample that follow each other on the board, without a transfer between them."""
    from tvmtiny.artifact import Artifact
    from tvmtiny.report.latency import latency
    from tvmtiny.runner.protocol import sample_bytes

    artifact = Artifact.load(directory)
    sample = _first_sample(artifact, data)
    with _connected(artifact, target_of(artifact, target), port) as client:
        cycles = client.benchmark(sample_bytes(artifact, sample, 0), sample.n_tokens, runs, timeout)
        found = latency([cycles], client.info.clock_hz, client.info.counter)
    if found is None:
        raise UserError(f"The firmware of {artifact.name} counts no cycles.")
    if as_json:
        console.show_json({"name": artifact.name, "n_tokens": sample.n_tokens, **found.to_json()})
    else:
        console.show(f"{found.text()}, minimum {found.minimum:,}")


@app.command("monitor")
def monitor(port: Annotated[str, typer.Argument(help="Serial port.")]) -> None:
    """Print what the firmware on a port says by itself (faults, text), until Ctrl-C."""
    from tvmtiny.link.monitor import listen
    from tvmtiny.link.serial_line import SerialLine

    line = SerialLine(port)
    console.message(f"Listening on {port}; Ctrl-C ends.")
    try:
        for text in listen(line):
            typer.echo(text, nl=False)
    finally:
        line.close()


@app.command("dump")
def dump(
    directory: Model,
    port: PortOption = None,
    target: TargetOption = None,
    data: DataOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="NPZ file for the values on the device.", show_default=False),
    ] = None,
    timeout: TimeoutOption = 60,
    as_json: console.JsonOption = False,
) -> None:
    """Compare every layer of one inference with the reference; the firmware was flashed with --debug."""
    import numpy as np

    from tvmtiny.artifact import Artifact
    from tvmtiny.link.layers import dump_layers

    artifact = Artifact.load(directory)
    with _connected(artifact, target_of(artifact, target), port) as client:
        layers = dump_layers(client, artifact, _first_sample(artifact, data), timeout)
    if output:
        np.savez(output, **{layer.name: layer.found for layer in layers})  # type: ignore[arg-type]
    rows = [
        {"name": layer.name, "kernel": layer.kernel, "values": layer.found.size, "different": layer.different}
        for layer in layers
    ]
    _show_layers(rows, as_json=as_json)


def find_port(target: Target) -> str:
    """The one serial port that may be a board of `target`; raises UserError when there is none or several."""
    from tvmtiny.boards.usb import ports_of

    found = ports_of(target)
    if len(found) == 1:
        return found[0].port
    if not found:
        raise UserError(
            f"No serial port has the USB identity of {target.name} ({', '.join(target.usb) or 'none is known'}).",
            "Plug the board in, or name its port with --port; tvmtiny board list shows them.",
        )
    ports = ", ".join(f"{device.port} ({device.serial})" for device in found)
    raise UserError(f"Several ports may be a {target.name}: {ports}.", "Name one with --port.")


@contextlib.contextmanager
def _connected(artifact: Artifact, target: Target, port: str | None) -> Iterator[Client]:
    """A session with a device that has this model in the firmware of `target`; its port is found if not given."""
    from tvmtiny.link.client import Client
    from tvmtiny.link.serial_line import SerialLine
    from tvmtiny.runner.firmware import check_firmware

    name = port or find_port(target)
    client = Client(SerialLine(name))
    try:
        check_firmware(artifact, target, client.open(), name)
        yield client
    finally:
        client.close()


def _first_sample(artifact: Artifact, data: Path | None) -> Sample:
    from tvmtiny.frontend.data import load_samples

    return load_samples(artifact, data or artifact.reference_inputs)[0]


def _show_layers(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        console.show_json({"rows": rows})
        return
    table = console.table("Layers", "layer", "kernel", "values", "different", right=("values", "different"))
    for row in rows:
        table.add_row(row["name"], row["kernel"], f"{row['values']:,}", f"{row['different']:,}")
    console.show(table)
