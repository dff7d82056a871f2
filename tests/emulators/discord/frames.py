"""The frames that a bot sends to the gateway, and what Discord refuses in them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from jsonschema import Draft202012Validator

from tests.emulators.discord.objects import Payload
from tests.emulators.discord.sessions import Shard

HEARTBEAT, IDENTIFY, PRESENCE, RESUME = 1, 2, 3, 6
# Those that Discord knows besides (docs: Gateway Opcodes).
_NOT_EMULATED = {
    4: "VOICE_STATE_UPDATE",
    8: "REQUEST_GUILD_MEMBERS",
    31: "REQUEST_SOUNDBOARD_SOUNDS",
}
_NAMES = {HEARTBEAT: "HEARTBEAT", IDENTIFY: "IDENTIFY", PRESENCE: "PRESENCE", RESUME: "RESUME"}

UNKNOWN_OP, BAD_FRAME, NOT_IDENTIFIED, WRONG_TOKEN, TWICE = 4001, 4002, 4003, 4004, 4005
BAD_SEQ, TOO_MANY, TIMED_OUT, BAD_SHARD, NEEDS_SHARDS = 4007, 4008, 4009, 4010, 4011
BAD_VERSION, BAD_INTENTS, FORBIDDEN_INTENTS = 4012, 4013, 4014

_FRAME_LIMIT = 4096  # bytes (docs: Sending Events)
# Every bit of docs: List of Intents.
_INTENTS = (1 << 17) - 1 | sum(1 << bit for bit in (20, 21, 24, 25))

_TEXT: Payload = {"type": "string"}
_ACTIVITY: Payload = {
    "type": "object",
    "required": ["name", "type"],
    "properties": {"name": _TEXT, "type": {"enum": [0, 1, 2, 3, 4, 5]}},
}
# Discord takes one without `afk`, but none without the others (discord-api-docs, issue 2226).
_PRESENCE: Payload = {
    "type": "object",
    "required": ["since", "activities", "status"],
    "properties": {
        "since": {"type": ["integer", "null"]},
        "activities": {"type": "array", "items": _ACTIVITY},
        "status": {"enum": ["online", "dnd", "idle", "invisible", "offline"]},
        "afk": {"type": "boolean"},
    },
}
_IDENTIFY: Payload = {
    "type": "object",
    "required": ["token", "properties", "intents"],
    "properties": {
        "token": _TEXT,
        "properties": {
            "type": "object",
            "required": ["os", "browser", "device"],
            "properties": {"os": _TEXT, "browser": _TEXT, "device": _TEXT},
        },
        "compress": {"type": "boolean"},
        "large_threshold": {"type": "integer", "minimum": 50, "maximum": 250},
        # discord.py 2.7.1 still writes `game` there where the activities should be.
        "presence": {"type": "object"},
        "intents": {"type": "integer"},
    },
}
# A library that never got a session asks for it all the same: discord.py 2.7.1 sends nulls.
_RESUME: Payload = {
    "type": "object",
    "required": ["token", "session_id", "seq"],
    "properties": {
        "token": _TEXT,
        "session_id": {"type": ["string", "null"]},
        "seq": {"type": ["integer", "null"]},
    },
}
_SHAPES = {
    HEARTBEAT: Draft202012Validator({"type": ["integer", "null"]}),
    IDENTIFY: Draft202012Validator(_IDENTIFY),
    PRESENCE: Draft202012Validator(_PRESENCE),
    RESUME: Draft202012Validator(_RESUME),
}


class HangUp(Exception):
    """The gateway closes the connection with this code; `unknown` names what is not emulated."""

    def __init__(self, code: int, *, problems: tuple[str, ...] = (), unknown: str = "") -> None:
        super().__init__(str(code))
        self.code = code
        self.problems = problems
        self.unknown = unknown


@dataclass(frozen=True, slots=True)
class Identify:
    """What a new session asks for; `shard` is None where it named none."""

    token: str
    intents: int
    shard: Shard | None


@dataclass(frozen=True, slots=True)
class Resume:
    """Which session is to go on, and the last number that its bot has heard."""

    token: str
    session_id: str
    seq: int


def read(data: str | bytes) -> tuple[int, object]:
    """Return the op of a frame and its data; raise HangUp where Discord cannot decode it."""
    try:
        # Binary frames are for ETF and for compressed ones, which the gateway does not take.
        if isinstance(data, bytes) or len(data.encode()) > _FRAME_LIMIT:
            raise HangUp(BAD_FRAME)
        frame = json.loads(data)
        op, told = frame["op"], frame.get("d")
    except (ValueError, KeyError, TypeError):
        raise HangUp(BAD_FRAME) from None
    if not isinstance(op, int):
        raise HangUp(BAD_FRAME)
    return op, told


def check_op(op: int, *, identified: bool) -> None:
    """Raise HangUp for an op that Discord does not know, that comes too early, or is not here."""
    if op not in _NAMES and op not in _NOT_EMULATED:
        raise HangUp(UNKNOWN_OP, unknown=f"gateway op {op}")
    if not identified and op not in (HEARTBEAT, IDENTIFY, RESUME):
        raise HangUp(NOT_IDENTIFIED)
    if op in _NOT_EMULATED:
        raise HangUp(UNKNOWN_OP, unknown=f"gateway op {op} ({_NOT_EMULATED[op]})")


def check_shape(op: int, data: object) -> None:
    """Raise HangUp where the data does not fit the op (docs: Send Events).

    Discord has one code for a wrong op and for a wrong payload of a known one.
    """
    found = _SHAPES[op].iter_errors(data)
    problems = tuple(f"gateway {_NAMES[op]}: {one.json_path}: {one.message[:200]}" for one in found)
    if problems:
        raise HangUp(UNKNOWN_OP, problems=problems)


def identify(data: object) -> Identify:
    """Return what a well-formed IDENTIFY asks for; raise HangUp for no shard or unknown intents."""
    asked = _object(data)
    shard, intents = asked.get("shard"), int(str(asked["intents"]))
    if intents & ~_INTENTS:
        raise HangUp(BAD_INTENTS)
    return Identify(str(asked["token"]), intents, None if shard is None else _shard(shard))


def resume(data: object) -> Resume:
    """Return what a well-formed RESUME asks for."""
    asked = _object(data)
    seq = asked["seq"]
    return Resume(
        token=str(asked["token"]),
        session_id=str(asked["session_id"]),
        seq=seq if isinstance(seq, int) else -1,
    )


def _shard(value: object) -> Shard:
    match value:
        case [int(number), int(count)] if 0 <= number < count:
            return number, count
    raise HangUp(BAD_SHARD)


def _object(data: object) -> Payload:
    return data if isinstance(data, dict) else {}
