"""The line between this computer and a model on a device: docs/link.md.

frames.py and messages.py are the twins of microtvm_projects/common/tvmt_frame.h and tvmt_link.h. client.py asks, waits,
repeats; a line (line.py) carries the bytes.
"""
