"""Schedules: which loops a kernel gets on a core, and which micro-kernels take the place of its tile operators."""
