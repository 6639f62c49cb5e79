"""What is plugged in: serial ports and debug probes, and which targets each may belong to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tvmtiny.link.serial_line import pyserial
from tvmtiny.target import Target, list_targets

USB_DEVICES = Path("/sys/bus/usb/devices")

# Debug probes by VID:PID, as their makers document them (and OpenOCD's and pyOCD's sources list them).
PROBES = {
    "0483:3748": "ST-LINK/V2",
    "0483:374b": "ST-LINK/V2-1",
    "0483:3752": "ST-LINK/V2-1 without drive",
    "0483:374e": "ST-LINK/V3",
    "0483:374f": "ST-LINK/V3",
    "0483:3753": "ST-LINK/V3",
    "0483:3754": "ST-LINK/V3",
    "0d28:0204": "DAPLink (CMSIS-DAP)",
    "1366:0101": "J-Link",
    "1366:0105": "J-Link OB",
    "1366:1015": "J-Link OB",
    "1366:1051": "J-Link OB",
    "2e8a:000c": "Raspberry Pi Debug Probe",
    "2e8a:0003": "RP2040 in its boot loader (BOOTSEL)",
    "1915:c00a": "Nordic Power Profiler Kit II",
}


@dataclasses.dataclass(frozen=True)
class Device:
    """Something plugged in.

    Attributes:
        port: its serial port, or "" for a probe without one.
        usb: VID:PID, or "" for a port that is not USB's.
        what: its name.
        serial: its serial number, which tells equal boards apart.
        targets: those whose file names this VID:PID.
    """

    port: str
    usb: str
    what: str
    serial: str
    targets: tuple[str, ...]


def list_devices() -> list[Device]:
    """Serial ports first, then probes that have none."""
    targets = list_targets()
    ports = [_port(info, targets) for info in _ports()]
    seen = {(device.usb, device.serial) for device in ports}
    probes = [
        Device("", usb, PROBES[usb], serial, _targets(usb, targets))
        for usb, serial in _usb(USB_DEVICES)
        if usb in PROBES and (usb, serial) not in seen
    ]
    return [*ports, *probes]


def ports_of(target: Target) -> list[Device]:
    """The serial ports that may be those of a board of `target`."""
    return [device for device in list_devices() if device.port and target.name in device.targets]


def _ports() -> list[Any]:
    pyserial()
    from serial.tools import list_ports

    # Ports on the main board that nothing is connected to have no hardware identity.
    return sorted(
        (port for port in list_ports.comports() if port.hwid != "n/a"), key=lambda port: port.device
    )


def _port(info: Any, targets: list[Target]) -> Device:
    usb = f"{info.vid:04x}:{info.pid:04x}" if info.vid is not None else ""
    what = PROBES.get(usb) or info.product or info.description or ""
    return Device(info.device, usb, what, info.serial_number or "", _targets(usb, targets))


def _targets(usb: str, targets: list[Target]) -> tuple[str, ...]:
    return tuple(target.name for target in targets if usb and usb in target.usb)


def _usb(root: Path) -> list[tuple[str, str]]:
    """VID:PID and serial number of every USB device."""
    devices = []
    for vendor in sorted(root.glob("*/idVendor")):
        folder = vendor.parent
        product, serial = folder / "idProduct", folder / "serial"
        if product.is_file():
            usb = f"{vendor.read_text().strip()}:{product.read_text().strip()}".lower()
            devices.append((usb, serial.read_text().strip() if serial.is_file() else ""))
    return devices
