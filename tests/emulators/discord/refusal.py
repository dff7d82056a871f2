"""How Discord says no."""

from __future__ import annotations

from tests.emulators.discord.objects import Payload


class Refusal(Exception):
    """An error answer of Discord; `body` is its JSON."""

    def __init__(self, status: int, code: int, text: str, **more: object) -> None:
        super().__init__(text)
        self.status = status
        self.body: Payload = {"message": text, "code": code} | more


def bad_form(path: str, code: str, text: str) -> Refusal:
    """Return the refusal of one field of a form; dots in its path lead into objects and arrays."""
    errors: Payload = {"_errors": [{"code": code, "message": text}]}
    for key in reversed(path.split(".")):
        errors = {key: errors}
    return Refusal(400, 50035, "Invalid Form Body", errors=errors)


def bad_length(path: str, least: int, most: int) -> Refusal:
    """Return the refusal of a text or an array that is too short or too long."""
    if least == 0:
        return bad_form(path, "BASE_TYPE_MAX_LENGTH", f"Must be {most} or fewer in length.")
    text = f"Must be between {least} and {most} in length."
    return bad_form(path, "BASE_TYPE_BAD_LENGTH", text)
