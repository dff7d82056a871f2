"""Modals and the Home tab: what an app opens, changes and publishes, and what people fill in."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from jsonschema import Draft202012Validator

from tests.emulators.clock import Clock
from tests.emulators.slack.arguments import SlackError, decoded, text
from tests.emulators.slack.blocks import check, check_blocks, fields, words
from tests.emulators.slack.blocks import text as text_of
from tests.emulators.slack.installation import APP_ID
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.workspace import Workspace

TRIGGER_SECONDS = 3.0  # docs: Handling user interaction, "Trigger"
# docs: Views, "View object fields".
VIEW_BLOCKS = 100
METADATA_CHARACTERS = 3000
# docs: Block Kit reference, "Surfaces" of these blocks.
_ONLY_IN_MESSAGES = ("context_actions", "markdown")
_TITLE = text_of(24, "plain_text")
_SHARED = {"callback_id": words(255), "private_metadata": {"maxLength": METADATA_CHARACTERS}}
_SHAPES = {
    "home": Draft202012Validator(fields({"blocks": True}, _SHARED)),
    "modal": Draft202012Validator(
        fields({"title": _TITLE, "blocks": True}, {"close": _TITLE, "submit": _TITLE, **_SHARED})
    ),
}

Filled = str | list[str]


@dataclass(slots=True)
class View:
    """A view as one person sees it; `errors` stand below its fields, by the ids of the blocks."""

    id: str
    user_id: str
    shown: Payload
    hash: str = ""
    is_open: bool = True
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What stands above a modal."""
        return _words(self.shown.get("title"))

    @property
    def texts(self) -> list[str]:
        """The texts of its sections and headers, in their order."""
        return [_words(one.get("text")) for one in self.blocks if one.get("text")]

    @property
    def blocks(self) -> list[Payload]:
        """Its blocks."""
        blocks = self.shown["blocks"]
        assert isinstance(blocks, list)
        return blocks

    @property
    def buttons(self) -> dict[str, Payload]:
        """The buttons by their action ids."""
        elements = [it for block in self.blocks for it in _listed(block.get("elements"))]
        return {str(it["action_id"]): it for it in elements if it["type"] == "button"}

    @property
    def labels(self) -> dict[str, str]:
        """What stands on its buttons, by their action ids."""
        return {name: _words(it["text"]) for name, it in self.buttons.items()}

    @property
    def fields(self) -> dict[str, Payload]:
        """The inputs by their block ids."""
        return {str(it["block_id"]): it for it in self.blocks if it["type"] == "input"}

    @property
    def people(self) -> set[str]:
        """The inputs in which people are chosen."""
        kind = "multi_users_select"
        return {name for name, it in self.fields.items() if _element(it)["type"] == kind}

    def held(self, block_id: str) -> str:
        """Return what stands in an input as long as nobody has changed it."""
        element = _element(self.fields[block_id])
        option = element.get("initial_option")
        if isinstance(option, dict):
            return str(option["value"])
        users = element.get("initial_users")
        listed = ",".join(map(str, users)) if isinstance(users, list) else ""
        return listed or str(element.get("initial_value", ""))

    def label(self, block_id: str) -> str:
        """Return what stands above an input."""
        return _words(self.fields[block_id]["label"])

    def options(self, block_id: str) -> dict[str, str]:
        """Return the labels of what a person can choose, by the values."""
        options = _listed(_element(self.fields[block_id]).get("options"))
        return {str(option["value"]): _words(option["text"]) for option in options}

    def values(self, filled: Mapping[str, Filled]) -> Payload:
        """Return `state.values` with what a person filled in; LookupError if Slack refuses it."""
        unknown = filled.keys() - self.fields.keys()
        if unknown:
            raise LookupError(f"the form has no {', '.join(unknown)}")
        return {
            block_id: {_action(block): _value(block, filled.get(block_id))}
            for block_id, block in self.fields.items()
        }

    def payload(self, workspace: Workspace, values: Payload | None = None) -> Payload:
        """Return the view as Slack tells of it (docs: view_submission payload)."""
        names = ("callback_id", "external_id", "private_metadata")
        return {
            **dict.fromkeys(names, ""),
            "close": None,
            "submit": None,
            "title": None,
            **self.shown,
            "id": self.id,
            "team_id": workspace.team_id,
            "state": {"values": values or {}},
            "hash": self.hash,
            "previous_view_id": None,
            "root_view_id": self.id,
            "app_id": APP_ID,
            "app_installed_team_id": workspace.team_id,
            "bot_id": workspace.bot_id,
        }


class Views:
    """What each person has open; a trigger opens one view within three seconds of the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._triggers: dict[str, tuple[str, float]] = {}
        self._views: dict[str, View] = {}
        self._homes: dict[str, View] = {}
        self.methods = {
            "views.open": self.open,
            "views.publish": self.publish,
            "views.update": self.update,
        }

    def trigger(self, user_id: str) -> str:
        """Return a trigger of something that a person has just done."""
        numbers = secrets.randbelow(10**13), secrets.randbelow(10**12)
        name = f"{numbers[0]}.{numbers[1]}.{secrets.token_hex(16)}"
        self._triggers[name] = user_id, self._clock.now() + TRIGGER_SECONDS
        return name

    def modal(self, user_id: str) -> View | None:
        """Return the modal that a person sees now."""
        mine = [it for it in self._views.values() if it.user_id == user_id and it.is_open]
        return mine[-1] if mine else None

    def home(self, user_id: str) -> View | None:
        """Return the Home tab as it was published to a person."""
        return self._homes.get(user_id)

    def open(self, workspace: Workspace, args: Payload) -> Payload:
        """views.open."""
        user_id, ends = self._triggers.get(text(args, "trigger_id"), ("", 0.0))
        if not user_id:
            # docs: views.open, errors; a used one is told apart by its empty person.
            is_known = text(args, "trigger_id") in self._triggers
            raise SlackError("exchanged_trigger_id" if is_known else "invalid_trigger_id")
        if ends < self._clock.now():
            raise SlackError("expired_trigger_id")
        view = View(f"V{secrets.token_hex(5).upper()}", user_id, _checked(args, "modal"))
        self._triggers[text(args, "trigger_id")] = "", ends
        return self._answer(workspace, view)

    def update(self, workspace: Workspace, args: Payload) -> Payload:
        """views.update."""
        view = self._views.get(text(args, "view_id"))
        if view is None or not view.is_open:
            raise SlackError("not_found")
        if text(args, "hash") not in ("", view.hash):
            raise SlackError("hash_conflict")
        view.shown, view.errors = _checked(args, "modal"), {}
        return self._answer(workspace, view)

    def publish(self, workspace: Workspace, args: Payload) -> Payload:
        """views.publish."""
        user_id = text(args, "user_id")
        if user_id not in workspace.users:
            raise SlackError("invalid_arguments", why="invalid user_id")
        old = self._homes.get(user_id)
        id_ = old.id if old else f"V{secrets.token_hex(5).upper()}"
        view = self._homes[user_id] = View(id_, user_id, _checked(args, "home"))
        return self._answer(workspace, view)

    def respond(self, view: View, answer: Payload, violations: list[str]) -> None:
        """Do what the app answered to a form that was filled in (docs: "Responding to views")."""
        match answer.get("response_action"):
            case None if not answer:
                view.is_open = False
            case "errors":
                errors = answer.get("errors")
                named = errors if isinstance(errors, dict) else {}
                if not named or not named.keys() <= view.fields.keys():
                    violations.append(f"errors of a form are about none of its fields: {errors}")
                view.errors = {str(name): str(why) for name, why in named.items()}
            case "update":
                try:
                    view.shown, view.errors = _checked(answer, "modal"), {}
                except SlackError as error:
                    violations.append(f"a form cannot become this: {error.code} {error.details}")
            case other:
                violations.append(f"no response_action is called {other}")

    def _answer(self, workspace: Workspace, view: View) -> Payload:
        view.hash = f"{secrets.randbelow(10**10)}.{secrets.token_hex(4)}"
        if view.shown["type"] == "modal":
            self._views[view.id] = view
        return {"view": view.payload(workspace)}


def _checked(args: Payload, kind: str) -> Payload:
    """Return the view of a call; SlackError where it is not as it must be."""
    view = decoded(args.get("view"), "invalid_arguments")
    if not isinstance(view, dict) or view.get("type") != kind:
        raise SlackError("invalid_arguments", why="must be a valid enum value [/view/type]")
    check(_SHAPES[kind], view, "/view", "invalid_arguments")
    blocks = check_blocks(view["blocks"], most=VIEW_BLOCKS)
    if not blocks or any(block["type"] in _ONLY_IN_MESSAGES for block in blocks):
        raise SlackError("invalid_arguments", why="unsupported block in a view")
    # docs: Views; inputs of a Home tab are not emulated.
    if any(block["type"] == "input" for block in blocks) and "submit" not in view:
        raise SlackError("invalid_arguments", why="missing required field: submit [/view/submit]")
    return {**view, "blocks": blocks}


def _value(block: Payload, filled: Filled | None) -> Payload:
    """Return what stands in an input; LookupError if Slack would not let a person submit it."""
    element, kind = _element(block), str(_element(block)["type"])
    label = _words(block["label"])
    match kind:
        case "plain_text_input":
            value = filled if filled is not None else element.get("initial_value")
            if len(str(value or "")) > int(str(element.get("max_length", METADATA_CHARACTERS))):
                raise LookupError(f"{label}: too long")
            found: Payload = {"value": value or None}
        case "static_select":
            options = {str(it["value"]): it for it in _listed(element["options"])}
            initial = element.get("initial_option")
            if filled:
                initial = options[str(filled)]
            found = {"selected_option": None if filled == "" else initial}
        case _:
            users = filled if filled is not None else element.get("initial_users", [])
            most = int(str(element.get("max_selected_items", 1000)))
            if not isinstance(users, list) or len(users) > most:
                raise LookupError(f"{label}: no more than {most}")
            found = {"selected_users": users}
    if not block.get("optional") and not any(found.values()):
        raise LookupError(f"{label}: please fill in this field")
    return {"type": kind, **found}


def _element(block: Payload) -> Payload:
    element = block["element"]
    assert isinstance(element, dict)
    return element


def _action(block: Payload) -> str:
    return str(_element(block).get("action_id", "a"))


def _listed(node: object) -> Iterator[Payload]:
    for item in node if isinstance(node, list) else ():
        if isinstance(item, dict):
            yield item


def _words(node: object) -> str:
    return str(node.get("text", "")) if isinstance(node, dict) else ""
