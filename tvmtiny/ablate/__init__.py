"""What each part of a recipe is worth: one change at a time, several seeds, every figure measured on the target.

A variant is a recipe with one change; a run is a variant with a seed: trained, compiled and evaluated on the emulated
core. Runs are kept as they finish, and spread over processors, or over a cluster, by Ray.
"""
