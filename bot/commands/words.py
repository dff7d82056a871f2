"""Commands in words, where there are no buttons and no forms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from bot.commands import handlers
from bot.commands.form import PARTS, answer_form, scope_of
from bot.commands.handlers import Call, Scope
from bot.domain import PRESSES, Consent, choices
from bot.errors import HasEnded
from bot.intake.answers import ALLOWED_ONCE, NOT_WAITING
from bot.intake.intake import Intake
from bot.languages import say
from bot.text.sanitize import in_code

Rights = Callable[[Call], Awaitable[Call]]


class Words:
    """Carries out commands; raises Refused and StoreUnavailable, and what `rights` raises.

    `written` is the form of a command, such as "`!parley {name}`". `scopes` are more words for
    where a choice applies; without any it has one place. `rights` completes a call that needs it.
    """

    def __init__(
        self, intake: Intake, *, written: str, scopes: Mapping[str, Scope], rights: Rights | None
    ) -> None:
        self.handlers = handlers.CommandHandlers(intake)
        self._lookup, self._answers = intake.lookup, intake.answers
        self._written, self._scopes, self._rights = written, scopes, rights

    async def run(self, line: str, call: Call, *, ways: Sequence[str] = ()) -> str:
        """Carry out a command with the words behind it; its help names `ways` to ask."""
        name, words = (*line.strip().split(maxsplit=1), "", "")[:2]
        name = name.casefold() or "help"
        if consent := PRESSES.get(name):
            return await self._consent(consent, call, words)
        if name == "help":
            here = handlers.HelpContext(ways=ways, written=self._written)
            return await self.handlers.help(call, here)
        if name == "forget-me":
            if words.casefold() == "yes":
                return await self.handlers.forget_me(call)
            how = say("If so, write: {words}", words=self._written.format(name="forget-me yes"))
            return f"{say(handlers.FORGET_QUESTION)}\n{how}"
        if name not in handlers.COMMANDS:
            unknown = "I do not know this command. Write {help}."
            return say(unknown, help=self._written.format(name="help"))
        call = await self._rights(call) if self._rights else call
        # What people say of themselves holds everywhere.
        first = next(iter(words.split()), "") if self._scopes and name != "me" else ""
        scope = self._scopes.get(first) or scope_of(first)
        words = words[len(first) :].strip() if scope else words
        if name == "settings":
            return await self._settings(call, scope, words)
        return await self.handlers.run(name, call, words, scope)

    async def decide(
        self, turn_id: str, call_id: str, consent: Consent, call: Call, words: str = ""
    ) -> str:
        """Answer what a turn asks; return what to tell the person, or "".

        A form is answered by `words`, with a line for each field; without them its fields are told.
        """
        id_, at, answers = call.person.id, call.thread, self._answers
        if consent != "answer":
            counted = await answers.decide(
                turn_id, call_id, consent, person_id=id_, at=at, is_admin=call.manages_messages
            )
            return say(ALLOWED_ONCE) if counted != consent else ""
        fields = answer_form(await answers.question(turn_id, call_id, person_id=id_, at=at)).fields
        if words:
            # A single field may have several lines.
            lines = words.split("\n") if len(fields) > 1 else [words]
            given = ("" if it.strip() == "-" else it.strip() for it in lines)
            filled = dict(zip((it.name for it in fields), given, strict=False))
            await answers.fill_in(turn_id, call_id, filled, person_id=id_, at=at)
            return ""
        how = "Write {command}, and below it one line for each of these, or `-`:"
        told = [say(how, command=self._written.format(name="answer"))]
        for one in fields:
            told.append(f"- {in_code(one.label)}" + (f" ({in_code(one.more)})" if one.more else ""))
        return "\n".join(told)

    async def _consent(self, consent: Consent, call: Call, words: str) -> str:
        """Answer what waits in the thread of a command."""
        turn_id = await self._lookup.first_open(call.thread)
        asked = await self._lookup.standings(turn_id, person_id=call.person.id) if turn_id else []
        call_id = asked[0].consent if asked else ""
        if not call_id or consent not in choices(call_id):
            raise HasEnded(NOT_WAITING)
        said = await self.decide(turn_id, call_id, consent, call, words)
        return said or say("Thank you, I go on.")

    async def _settings(self, call: Call, scope: Scope | None, words: str) -> str:
        """Show what is chosen, or choose one value by the name of its field."""
        name, _, value = words.partition(" ")
        overview, names = await self.handlers.overview(call), list[str]()
        nearest = next(iter(call.scopes)) if scope is None else scope
        parts = [it for of, it, _ in overview.forms if of == nearest]
        for part in parts or PARTS[: bool(name)]:  # a form that may not be opened says why
            form = await self.handlers.form(call, nearest, part)
            names += [it.name for it in form.fields if it.kind != "roles"]
            if name in names:
                given = "" if value.casefold() == handlers.DEFAULT else value
                filled = {name: given.split() if name == "people" else given}
                return await self.handlers.fill_in(call, nearest, part, filled, seen="")
        if not names:
            return overview.text
        scopes = "|".join(word for word, it in self._scopes.items() if it in call.scopes)
        how = self._written.format(name=f"settings [{scopes}] NAME VALUE".replace("[] ", ""))
        known = ", ".join(map(in_code, names))
        said = say("Write {how}, with one of these names: {names}.", how=how, names=known)
        return f"{overview.text}\n{said}"
