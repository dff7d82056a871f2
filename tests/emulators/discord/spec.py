"""Checks what a bot sends against Discord's own OpenAPI document, where that is at hand."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path

from jsonschema import Draft202012Validator

DISCORD_SPEC = Path(__file__).parents[4] / "shared" / "specs" / "discord-openapi.json"
# JSON numbers are exact up to here; what is larger in a form is an id.
_EXACT = 2**53


def problems(method: str, template: str, body: object) -> Iterator[str]:
    """Yield what Discord's document objects to in a JSON body; nothing where it is not at hand.

    Discord takes ids as numbers too, so they are made into strings first.
    """
    validator = _validators().get((method, template))
    if validator is None:
        return
    for error in validator.iter_errors(_with_string_ids(body)):
        yield f"{method} {template}: {error.json_path}: {error.message[:200]}"


@functools.cache
def _validators() -> dict[tuple[str, str], Draft202012Validator]:
    if not DISCORD_SPEC.exists():
        return {}
    document = json.loads(DISCORD_SPEC.read_text(encoding="utf-8"))
    shared = {"components": document["components"]}
    forms = {
        (method.upper(), template): operation["requestBody"]["content"]
        for template, operations in document["paths"].items()
        for method, operation in operations.items()
        if "requestBody" in operation
    }
    return {
        name: Draft202012Validator(shared | form["application/json"]["schema"])
        for name, form in forms.items()
        if "application/json" in form
    }


def _with_string_ids(value: object) -> object:
    if isinstance(value, dict):
        return {key: _with_string_ids(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_string_ids(one) for one in value]
    is_id = isinstance(value, int) and value > _EXACT
    return str(value) if is_id else value
