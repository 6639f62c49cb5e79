"""Relax passes. Each is an ordinary `tvm.transform` pass; the Relax pipeline `tvmtiny` runs the float part of them."""
