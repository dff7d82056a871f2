"""The failures that a client of a model meets, by name: what is sent for each.

The words of Hugging Face's router are those that others have met (servers.py); a connection that is
refused has a verb of its own, `ModelEmulator.refuse_connections`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.emulators.faults import How
from tests.emulators.model.servers import unsupported

_CHUNKED = {"Transfer-Encoding": "chunked"}
_LINE_SEPARATOR = '{"choices": [{"index": 0, "delta": {"content": "one\u2028two"}}]}'


@dataclass(frozen=True, slots=True)
class Failure:
    """What `ModelEmulator.fail` is told for one failure."""

    how: How = "status"
    status: int = 500
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    retry_after: float | None = None
    at_delta: int | None = None


def _refusal(status: int, error: str, **more: object) -> Failure:
    return Failure(status=status, body={"error": error, **more})


def _event(error: str, kind: str) -> Failure:
    return Failure("error_event", body={"error": error, "error_type": kind}, at_delta=1)


FAILURES: Mapping[str, Failure] = {
    # Refusals.
    "bad request": Failure(status=400),
    "unsupported model": Failure(status=400, body=unsupported("org/model").body),
    "wrong key": _refusal(401, "Invalid username or password."),
    "no credit": _refusal(
        402,
        "You have depleted your monthly included credits. Purchase pre-paid credits to continue"
        " using Inference Providers.",
    ),
    "gated model": Failure(
        status=403,
        body={"error": "You cannot access this model unless the model owner gives you access."},
        headers={"X-Error-Code": "GatedRepo"},
    ),
    "forbidden token": _refusal(
        403,
        "This authentication method does not have sufficient permissions to call Inference"
        " Providers on behalf of user emulated",
    ),
    "unknown model": _refusal(404, "Model org/model does not exist"),
    "too large": _refusal(413, "Payload Too Large"),
    "invalid": _refusal(422, "Input validation error: bad", error_type="validation"),
    "chunked refusal": Failure(status=422, body={"error": "bad"}, headers=_CHUNKED),
    "list for a body": Failure(status=422, body=[{"msg": "bad"}]),
    "string for a body": Failure(status=422, body='"bad"'),
    "too many requests": Failure(status=429, body={"error": "Too Many Requests"}, retry_after=7),
    "server error": Failure(),
    "loading": _refusal(503, "Model org/model is currently loading", estimated_time=20.5),
    # Streams that go wrong.
    "end without done": Failure("eof", at_delta=1),
    "done without space": Failure("garbage", body="data:[DONE]", at_delta=1),
    "line separator": Failure("garbage", body=_LINE_SEPARATOR, at_delta=1),
    "half a line": Failure("garbage", at_delta=1),
    "list in a line": Failure("garbage", body="[1]", at_delta=1),
    "string in a line": Failure("garbage", body='"text"', at_delta=1),
    "error event": Failure("error_event", at_delta=1),
    "generation event": _event("Request failed during generation", "generation"),
    "overloaded event": _event("Model is overloaded", "overloaded"),
    "incomplete event": _event("Incomplete generation", "incomplete_generation"),
    "validation event": _event("Input validation error: bad", "validation"),
    # Connections that go wrong.
    "silence before headers": Failure("hang"),
    "silence in the stream": Failure("hang", at_delta=1),
    "end before headers": Failure("drop"),
    "end in the stream": Failure("drop", at_delta=1),
    "reset before headers": Failure("reset"),
    "reset in the stream": Failure("reset", at_delta=1),
}
