"""The one error of `kuma-dp`."""

from __future__ import annotations


class StartError(Exception):
    """The proxy cannot be started. The text is for the user: what is wrong with which input, and the way out."""
