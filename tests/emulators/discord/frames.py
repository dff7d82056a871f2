"""The frames that a bot sends to the gateway, and what Discord refuses in them."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator

from tests.emulators.discord.sessions import Shard

HEARTBEAT, IDENTIFY, RESUME = 1, 2, 6
# docs: Gateway Close Event Codes.
UNKNOWN_OP, BAD_FRAME, WRONG_TOKEN, TWICE, BAD_SEQ = 4001, 4002, 4004, 4005, 4007
TIMED_OUT, BAD_SHARD, NEEDS_SHARDS, FORBIDDEN_INTENTS = 4009, 4010, 4011, 4014

_FRAME_LIMIT = 4096  # bytes (docs: Sending Events)
_TEXT = {"type": "string"}
# docs: Send Events.
_SHAPES: dict[int, dict[str, Any]] = {
    HEARTBEAT: {"type": ["integer", "null"]},
    IDENTIFY: {
        "type": "object",
        "required": ["token", "properties", "intents"],
        "properties": {
            "token": _TEXT,
            "properties": {"type": "object", "required": ["os", "browser", "device"]},
            "intents": {"type": "integer"},
        },
    },
    # A library that never got a session asks for it all the same: discord.py 2.7.1 sends nulls.
    RESUME: {
        "type": "object",
        "required": ["token", "session_id", "seq"],
        "properties": {"token": _TEXT, "seq": {"type": ["integer", "null"]}},
    },
}


class HangUp(Exception):
    """The gateway closes the connection with this code, and fails the test if it has a problem."""

    def __init__(self, code: int, problem: str = "") -> None:
        super().__init__(str(code))
        self.code = code
        self.problem = problem


def read(data: str | bytes) -> tuple[int, Any]:
    """Return the op of a frame and its data, which fits it; raise HangUp for any other frame."""
    try:
        # Binary frames are for ETF and for compressed ones, which the gateway does not take.
        if isinstance(data, bytes) or len(data.encode()) > _FRAME_LIMIT:
            raise HangUp(BAD_FRAME)
        frame = json.loads(data)
        op, told = frame["op"], frame.get("d")
    except (ValueError, KeyError, TypeError):
        raise HangUp(BAD_FRAME) from None
    if op not in _SHAPES:
        raise HangUp(UNKNOWN_OP, f"gateway op {op} is not emulated")
    # Discord has one code for a wrong op and for a wrong payload of a known one.
    for error in Draft202012Validator(_SHAPES[op]).iter_errors(told):
        raise HangUp(UNKNOWN_OP, f"gateway op {op}: {error.json_path}: {error.message[:200]}")
    return op, told


def shard_of(identify: dict[str, Any]) -> Shard | None:
    """Return the shard that an IDENTIFY names, if it does; raise HangUp if there is none such."""
    match identify.get("shard"):
        case None:
            return None
        case [int(number), int(count)] if 0 <= number < count:
            return number, count
    raise HangUp(BAD_SHARD)
