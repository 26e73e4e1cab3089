"""Revisions, named `r<number>_<what>.py`."""
