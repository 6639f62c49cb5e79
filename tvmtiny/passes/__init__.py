"""Relax passes. Each is an ordinary `tvm.transform` pass; the Relax pipeline `tvmtiny` runs the float part of them."""

from tvmtiny.passes.ffi_errors import register

register()
