"""Where a program can run, one module a kind: `--on KIND` and `--on KIND:ARGUMENT` find it by its name.

A module defines the functions of `Runner` in base.py; nothing else is edited to add a kind.
"""
