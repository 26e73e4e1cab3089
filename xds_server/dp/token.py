"""The Dataplane token as a file or text, and the claims that `kuma-dp` reads before it trusts anybody."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xds_server.dp.errors import StartError

GENERATE = "generate one with `kumactl generate dataplane-token --name NAME > FILE`"


def read_token(path: str) -> str:
    """The token in the file. One newline at its end is accepted (Kuma refuses it). Raises StartError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise StartError(f"dataplane token file {path!r} cannot be read: {reason}; {GENERATE}") from error
    return checked_token(text.removesuffix("\n").removesuffix("\r"), f"dataplane token file {path!r}")


def checked_token(text: str, origin: str) -> str:
    """The token, if it is one (R §8.1: non-empty, printable, a JWT). Raises StartError naming its origin."""
    if not text.strip():
        raise StartError(f"{origin} is empty; {GENERATE}")
    for position, character in enumerate(text):
        if not character.isprintable() or character == " ":
            raise StartError(f"{origin} contains {character!r} at position {position}, which no token has; {GENERATE}")
    claims(text, origin)
    return text


def claims(token: str, origin: str = "the dataplane token") -> Mapping[str, Any]:
    """What the token says about itself. Nothing here is verified: the control plane does that."""
    try:
        header, payload, _ = token.split(".")
        parsed = [json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in (header, payload)]
    except (ValueError, binascii.Error) as error:
        raise StartError(f"{origin} is not a JSON Web Token; {GENERATE}") from error
    if not all(isinstance(part, dict) for part in parsed):
        raise StartError(f"{origin} is not a JSON Web Token; {GENERATE}")
    found: Mapping[str, Any] = parsed[1]
    return found
