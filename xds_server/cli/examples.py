"""Examples at the end of a `--help`."""

from __future__ import annotations


def examples(*commands: str) -> str:
    """An epilog that shows each command on a line of its own: the help joins the lines of a paragraph."""
    return "\n\n".join(("Examples:", *(f"  {command}" for command in commands)))
