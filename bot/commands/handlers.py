"""Carries out the commands of all platforms."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from bot import audit
from bot.access.preferences import Scope as Scope
from bot.access.preferences import resolved
from bot.access.quotas import MILLION, money_of
from bot.commands.form import PARTS, Filled, Form, Part, changes_in, chosen_lines, form_of
from bot.concurrency import Backoff
from bot.domain import ANYBODY, Asker, Json, Person, Preferences, ThreadKey
from bot.errors import ParleyError, Refused, StoreUnavailable, SurfaceError, TooFewReplicas, until
from bot.intake.access import Chosen
from bot.intake.intake import Intake
from bot.languages import later, number, say
from bot.text.sanitize import in_code
from bot.tools.toolset import Listed, may_use_in
from bot.turns.usage import Sums

# In the order of help. A platform registers them as `/parley NAME`, with these descriptions.
COMMANDS: Mapping[str, str] = {
    "reset": later("Forget this conversation"),
    "stop": later("Stop the answer that I am writing here"),
    "quiet": later("Answer only mentions and replies in this thread"),
    "follow": later("Answer everything in this thread"),
    "model": later("Choose the model that answers"),
    "persona": later("Choose how I should answer"),
    "me": later("Tell me what I should know in all your questions"),
    "tools": later("Show my tools here, and switch them off or on"),
    "settings": later("Show and change my settings here"),
    "usage": later("Show what you have used today"),
    "forget-me": later("Forget everything you have said to me"),
    "help": later("Show what I can do here"),
}
DEFAULT = "default"  # instead of a model or a persona: removes the choice
CLEAR = "clear"  # the same of a person's own instructions
ASK_ABOUT = later("Ask about this")  # of a message's menu
SUMMARISE = later("Summarise from here")
SUMMARY_QUESTION = (
    "Summarise what was said from the quoted message on: what it is about, what was decided, and"
    " what is open. Say who said what where it matters."
)
FORGET_QUESTION = (
    "Shall I forget everything you have said to me, and my answers to it, in every place? "
    "This cannot be undone."
)
FORGET = "Forget everything"  # the button below it
FORGETTING = (
    "I am forgetting everything you have said to me. This takes a little while; until then I "
    "cannot answer you."
)
FORGOTTEN = (
    "I have forgotten everything you have said to me. Messages that you can still see are not "
    "deleted: please delete them yourself if you want. Today's usage still counts."
)
FORGOTTEN_AND_REMOVED = (
    "I have forgotten everything you have said to me, and I remove my answers to you here. Your "
    "own messages stay: please delete them yourself if you want. Today's usage still counts."
)
AWAY = "I cannot do this at the moment. Please try again in a minute."


class NotOffered(Refused):
    """The command is not supported in this version, or in this place."""

    apology = "This does not work here."


class NotAThread(Refused):
    """A command about a thread was called outside of one."""

    apology = "This only works in a thread where I have answered. Please use it there."


class MayNotChange(Refused):
    """The person may not choose anything for a place; `channel` is what its channel is called."""

    def __init__(self, scope: Scope, channel: str = "") -> None:
        super().__init__(say(_WHO[scope], place=channel or say("the place around")))


_WHO: Mapping[Scope, str] = {
    "thread": later(
        "Only the person who started this conversation, or somebody who manages {place}, "
        "can change this."
    ),
    "channel": later("Only somebody who manages {place} can change this."),
    "server": later("Only an admin can change this for everybody."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A command: its person and place, and the person's rights on the platform.

    `id` is the id of the event, as for a turn. Commands act on the conversation `thread`;
    `in_thread` is true if its place contains nothing else, so that `stop` acts on it alone.
    `scopes` are the scopes that can have preferences, the nearest first, with the names that people
    read, such as "this channel". `asker` decides whether the person may use the bot there.
    `own_thread`: the person began this conversation, or is alone in it with the bot.
    `manages_messages` may be a function that looks it up. `removes_answers` is as the platform's.
    """

    id: str
    thread: ThreadKey
    person: Person
    scopes: Mapping[Scope, str]
    asker: Asker = ANYBODY
    in_thread: bool = False
    own_thread: bool = False
    manages_messages: bool | Callable[[], Awaitable[bool]] = False
    manages_channel: bool = False
    manages_server: bool = False
    removes_answers: bool = False


@dataclass(frozen=True, slots=True)
class MissingFeature:
    """A feature that does not work in a place: the effect, and what an admin can switch on."""

    without: str  # "I see only messages that mention me."
    cure: str  # "An admin can switch on Message Content Intent under Bot at …."


@dataclass(frozen=True, slots=True, kw_only=True)
class HelpContext:
    """What help shows for a place: how to ask there, in sentences, and what is missing.

    `written` is the form of a command, or empty if commands are not typed there.
    """

    ways: Sequence[str]
    lacks: Sequence[MissingFeature] = ()
    written: str = "`/parley {name}`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What is chosen in a place, and the forms that this person may open."""

    text: str
    forms: Sequence[tuple[Scope, Part, str]] = ()  # with the label of a button


class CommandHandlers:
    """Carries out commands; each method returns a sentence for the person alone.

    Each raises Refused, whose `apology` is for the person, and StoreUnavailable.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def run(
        self, name: str, call: Call, argument: str = "", scope: Scope | None = None
    ) -> str:
        """Carry out a command of COMMANDS, except those that show more than a sentence.

        `model` and `persona` show what is chosen if there is no argument, and remove it for the
        argument DEFAULT; `tools` takes "off", "on", and "revoke" with a name. Their default scope
        is the nearest one. `me` shows the person's own instructions, or takes CLEAR or a text.
        """
        match name:
            case "reset":
                return await self._reset(call)
            case "stop":
                return await self._stop(call)
            case "quiet" | "follow":
                return await self._follow(call, is_quiet=name == "quiet")
            case "model":
                return await self._model(call, argument.strip(), scope)
            case "persona":
                return await self._persona(call, argument.strip(), scope)
            case "me":
                return await self._me(call, argument.strip())
            case "usage":
                return await self._usage(call)
            case "tools":
                return await self._tools(call, argument.strip(), scope)
        raise NotOffered

    def models(self, typed: str = "") -> list[tuple[str, str]]:
        """Return the names and labels of the models that match what a person has typed."""
        sought = typed.strip().casefold()
        found = [(one.name, one.label) for one in self._intake.preferences.offered]
        return [one for one in found if any(sought in text.casefold() for text in one)]

    async def personas(self, call: Call, typed: str = "") -> list[str]:
        """Return the names of personas that match what a person has typed."""
        known = await self._intake.own.personas(call.thread.platform, call.person)
        return [name for name in known if typed.strip().casefold() in name.casefold()]

    async def overview(self, call: Call) -> Overview:
        """Return what is chosen for a place, and which forms this person may open."""
        found = await self._check(call, settles=True)
        offered = [
            (scope, part, say(_FORMS[part], place=name))
            for scope, name in self.changeable(call).items()
            for part in PARTS
            if scope != "thread" or part == "answers"
        ]
        lines = chosen_lines(found, call.scopes, self._intake.preferences.offered)
        text = "\n".join(lines) or say("Nothing was changed here: I use my default settings.")
        return Overview(text=f"{text}\n{self._how(call, '')}".strip(), forms=offered)

    def changeable(self, call: Call) -> Mapping[Scope, str]:
        """Return the scopes that this person may change, with their names."""
        return {it: name for it, name in call.scopes.items() if self._may_change(call, it)}

    async def form(self, call: Call, scope: Scope, part: Part) -> Form:
        """Return a form with what is chosen now."""
        found = (await self._check(call, settles=True)).get(scope) or Preferences()
        self._require(call, scope)
        title = say(_FORMS[part], place=call.scopes[scope])
        return form_of(found, scope, part, title=title, models=self._intake.preferences.offered)

    async def fill_in(
        self, call: Call, scope: Scope, part: Part, values: Filled, *, seen: str
    ) -> str:
        """Store what a person changed in a form, by the names of its fields.

        Unchanged inputs are not stored: another person may have changed them meanwhile.
        """
        models = self._intake.preferences.offered
        form = form_of(Preferences(), scope, part, title="", models=models)
        changes = changes_in(form, values, seen=seen)
        if not changes:
            return say("Nothing was changed.")
        place, _ = await self._change(call, scope, changes)
        labels = ", ".join(one.label for one in form.fields if one.name in changes)
        return say("Saved for {place}: {labels}.", place=place, labels=labels)

    async def tools(self, call: Call) -> Sequence[str]:
        """Return a line for each tool that may be used in a place, or that they are off."""
        found = [_line(one) for one in self._intake.tools if may_use_in(call.thread, one.places)]
        is_off = resolved(await self._check(call)).tools
        return [say("My tools are switched off here.")] if found and is_off else found

    async def allowed(self, call: Call) -> Sequence[str]:
        """Return the names of the tools that the person has allowed for always."""
        return await self._intake.allowed.names(call.thread.platform, call.person)

    async def revoke(self, call: Call, name: str) -> str:
        """Ask the person again before a tool of this full name is used."""
        platform, person = call.thread.platform, call.person
        if not await self._intake.allowed.revoke(platform, person, name):
            raise NotOffered("You have not allowed a tool of that name for always.")
        return say("I will ask you again before I use {name}.", name=in_code(name))

    async def forget_me(self, call: Call) -> str:
        """Begin to forget a person who has confirmed FORGET_QUESTION.

        Returns FORGETTING if that takes longer than a moment; then `forgotten` waits for the end.
        """
        await self._intake.forget_person(call.thread.platform, call.person)
        try:
            async with asyncio.timeout(_FORGET_SECONDS):
                return await self.forgotten(call)
        except TimeoutError:
            return say(FORGETTING)

    async def forgotten(self, call: Call) -> str:
        """Wait until the person is forgotten, and return the sentence for them."""
        for pause in _POLL.pauses():
            with suppress(StoreUnavailable):
                if await self._intake.has_forgotten(call.thread.platform, call.person):
                    break
            await asyncio.sleep(pause)
        return say(FORGOTTEN_AND_REMOVED if call.removes_answers else FORGOTTEN)

    async def help(self, call: Call, here: HelpContext) -> str:
        """Return what works in a place, for which people, and what an admin can switch on."""
        ways = [*here.ways, *await self._rules(call)]
        parts = ["\n".join(f"- {way}" for way in ways)]
        if here.written:
            commands = (
                f"{here.written.format(name=one)}: {say(does)}"
                for one, does in COMMANDS.items()
                if not (call.asker.direct and one in _OF_THREADS)
            )
            parts.append("\n".join(commands))
        if here.lacks:
            lines = [f"- {lack.without} {lack.cure}" for lack in here.lacks]
            parts.append("\n".join([say("What does not work here:"), *lines]))
        return "\n\n".join(parts)

    async def _reset(self, call: Call) -> str:
        await self._check(call)
        self._require(call, "thread")
        await self._intake.changes.reset(call.thread, call.id, by=call.person.id)
        return say("I have forgotten this conversation. Your next question begins a new one.")

    async def _stop(self, call: Call) -> str:
        """End the answers of this person that run there, or another's if they manage messages."""
        await self._check(call)
        stopped = await self._intake.answers.stop_own(
            call.id,
            call.thread,
            call.person,
            channel="" if call.in_thread else call.thread.channel,
            manages=call.manages_messages,
        )
        return say("Stopped.") if stopped else say("I am not answering you here right now.")

    async def _follow(self, call: Call, *, is_quiet: bool) -> str:
        if call.asker.direct:
            raise NotOffered("In a direct message every message is a question to me.")
        if not call.in_thread:
            raise NotAThread
        await self._change(call, "thread", {"follow": "mention" if is_quiet else "all"})
        if is_quiet:
            return say("From now on I answer only mentions and replies here.")
        return say("From now on I answer every message here, unless it is for somebody else.")

    async def _model(self, call: Call, name: str, scope: Scope | None) -> str:
        label_of = self._intake.preferences.label_of
        if name:
            place, chosen = await self._change(call, scope, {"model": _given(name)})
            if not chosen.model:
                return say("From now on the default model answers in {place}.", place=place)
            model = label_of(chosen.model)
            return say("From now on {model} answers in {place}.", model=model, place=place)
        model = label_of(resolved(await self._check(call)).model)
        answers = say("The default model answers here.")
        if model:
            answers = say("{model} answers here.", model=model)
        models = self._intake.preferences.offered
        offered = ", ".join(
            f"{it.label} ({it.purpose})" if it.purpose else it.label for it in models
        )
        how = self._how(call, say("Write the name of one, or `default` for the default model."))
        offers = say("Models: {offered}.", offered=offered)
        return f"{answers} {offers} {how}" if offered else answers

    async def _persona(self, call: Call, text: str, scope: Scope | None) -> str:
        if text:
            place, chosen = await self._change(call, scope, {"persona": _given(text)})
            if not chosen.persona:
                return say("I no longer use that persona in {place}.", place=place)
            known = await self._intake.own.personas(call.thread.platform, call.person)
            if name := _name_of(chosen.persona, known):
                sentence = "From now on I use the persona {name} in {place}."
                return say(sentence, name=name, place=place)
            return say("From now on I use this persona in {place}.", place=place)
        persona = resolved(await self._check(call)).persona
        known = await self._intake.own.personas(call.thread.platform, call.person)
        shown = say("No persona is chosen here.")
        if persona:
            shown = f"{say('My persona here:')} {_name_of(persona, known)}".strip() + f"\n{persona}"
        how = say("Write how I should answer, or `default` to remove it.")
        if known:
            shown += "\n" + say("Personas: {names}.", names=", ".join(known))
            how = say("Write the name of one, or how I should answer, or `default` to remove it.")
        return f"{shown}\n{self._how(call, how)}"

    async def _me(self, call: Call, text: str) -> str:
        """Show, save or drop what a person wants in all their answers; only they see it."""
        own, who = self._intake.own, (call.thread.platform, call.person)
        if text.casefold() in (CLEAR, DEFAULT):
            # Also for somebody who may not use the bot any more.
            await own.save_instructions(*who, "")
            return say("I have forgotten what you wanted in all my answers to you.")
        if text:
            await self._check(call)
            await own.save_instructions(*who, text)
            return say(
                "From now on I keep this in mind in all my answers to you, and to nobody else."
            )
        if kept := (await own.read(*who)).instructions:
            head = say("In all my answers to you I keep in mind:")
            return f"{head}\n{kept}\n{say('Write `clear` to remove it.')}"
        return say(
            "You have told me nothing for all your questions. Write what I should keep in mind."
        )

    async def _usage(self, call: Call) -> str:
        """Return what the person has used, and what is left."""
        used = await self._intake.access.usage(call.thread, call.person, call.asker)
        quota = used.quota
        lines = [
            say("Your questions today: {used}", used=_of(used.questions, quota.questions)),
            say("Your tokens today, read and written: {used}", used=_of(used.tokens, quota.tokens)),
        ]
        if quota.server_tokens is not None:
            all_people = _of(used.server_tokens, quota.server_tokens)
            lines.append(say("Tokens of everybody here today: {used}", used=all_people))
        if used.calls_per_day is not None:
            calls = _of(used.calls, used.calls_per_day)
            lines.append(say("Your calls of tools today: {used}", used=calls))
        lines.append(say("Limits reset at 00:00 UTC, {when}.", when=until(used.renews_in)))
        renewed = say("That limit resets {when}.", when=until(used.month_renews_in))
        if quota.money is not None:
            cost = money_of(used.money, quota.money)
            lines.append(f"{say('What you cost this month: {cost}.', cost=cost)} {renewed}")
        if quota.server_money is not None:
            cost = money_of(used.server_money, quota.server_money)
            everybody = say("What everybody here costs this month: {cost}.", cost=cost)
            lines.append(f"{everybody} {renewed}")
        is_admin = call.manages_server or self._intake.access.rules.is_admin(call.person)
        if is_admin and "server" in call.scopes:
            lines += await self._server_usage(call)
        return "\n".join(lines)

    async def _server_usage(self, call: Call) -> Sequence[str]:
        """Return what all people of a server have used together, which its admins may see."""
        sums = self._intake.sums
        today = await sums.today()
        by_day = await sums.of_server(call.thread, today)
        by_month = await sums.of_server(call.thread, today.replace(day=1))
        label_of = self._intake.preferences.label_of
        return [
            say("Everybody here today: {used}", used=_summed(by_day.values())),
            say("This month: {used}", used=_summed(by_month.values())),
            *(f"- {label_of(it) or it}: {_summed([one])}" for it, one in sorted(by_month.items())),
        ]

    async def _tools(self, call: Call, words: str, scope: Scope | None) -> str:
        verb, _, name = words.partition(" ")
        match verb.casefold():
            case "":
                tools = await self.tools(call)
                lines = [f"- {one}" for one in tools] or [say("I have no tools here.")]
                if allowed := await self.allowed(call):
                    named = ", ".join(map(in_code, allowed))
                    lines.append(say("You have allowed for always: {named}.", named=named))
                    lines.append(say("Write `revoke` and one of these names to be asked again."))
                return "\n".join(
                    [*lines, self._how(call, say("Write `off` or `on` to switch them."))]
                )
            case "revoke":
                return await self.revoke(call, name.strip().strip("`"))
            case "off":
                place, _ = await self._change(call, scope, {"tools": "off"})
                return say("From now on I use no tools in {place}.", place=place)
            case "on":
                place, _ = await self._change(call, scope, {"tools": None})
                found = await self._check(call, settles=True)
                for it in (it for it, one in found.items() if one.tools):
                    around = call.scopes.get(it) or say("the place around")
                    off = "They stay switched off here, because they are off for {place}."
                    return say(off, place=around)
                return say("From now on I may use tools in {place}.", place=place)
        raise NotOffered("Write `off`, `on`, or `revoke` and the name of a tool.")

    async def _rules(self, call: Call) -> list[str]:
        """Return when the bot answers, and who may use it. Raises NotAllowed."""
        try:
            async with asyncio.timeout(_HELP_SECONDS):
                found = await self._check(call)
        except (StoreUnavailable, TimeoutError):
            return []
        follow = resolved(found).follow or self._intake.follow
        is_alone = call.asker.direct or call.asker.signed_in
        rules = [] if is_alone else [say(_FOLLOWS[follow])]
        if model := self._intake.preferences.label_of(resolved(found).model):
            rules.append(say("{model} answers here.", model=model))
        access = self._intake.access.rules
        if access.people or access.roles or any(one.people or one.roles for one in found.values()):
            rules.append(say("Not everybody may use me here, but you may."))
        if questions := access.quota_of(call.person, call.asker, found).questions:
            rules.append(say("You may ask me {many} questions a day.", many=number(questions)))
        return rules

    def _how(self, call: Call, how: str) -> str:
        """Return how to choose, or who may do that if this person may not."""
        return how if self.changeable(call) else _refusal(next(iter(call.scopes)), call).apology

    async def _change(
        self, call: Call, scope: Scope | None, changes: Mapping[str, Json]
    ) -> tuple[str, Preferences]:
        """Store a person's choice; return the name of the place, and what is chosen there."""
        found = await self._check(call, settles=True)
        nearest = next(iter(call.scopes)) if scope is None else scope
        self._require(call, nearest)
        if written := changes.get("persona"):
            who = call.thread.platform, call.person
            named = await self._intake.own.persona_text(*who, str(written))
            changes = {**changes, "persona": named}
        changes = self._intake.access.rules.with_limits(call.person, nearest, changes, found)
        chosen = await self._intake.preferences.change(
            call.thread, nearest, changes, by=call.person.id
        )
        return call.scopes[nearest], chosen

    async def _check(self, call: Call, *, settles: bool = False) -> Chosen:
        """Return what is chosen there. Raises NotAllowed if a person may not use the bot there.

        With `settles`, people who manage the place are not bound by what is chosen for it.
        """
        access = self._intake.access
        if settles and (call.manages_channel or call.manages_server):
            access.rules.check(call.thread, call.person, call.asker)
            return await self._intake.preferences.read(call.thread)
        return await access.check(call.thread, call.person, call.asker)

    def _require(self, call: Call, scope: Scope) -> None:
        """Raise Refused if the call's place has no such scope, or the person may not change it."""
        if scope not in call.scopes:
            if scope == "thread":
                raise NotAThread
            raise NotOffered("Here you can only choose for this conversation.")
        if not self._may_change(call, scope):
            audit.note_refusal(f"settings:{scope}", call.thread, call.person)
            raise _refusal(scope, call)

    def _may_change(self, call: Call, scope: Scope) -> bool:
        return (
            call.manages_server
            or (scope != "server" and call.manages_channel)
            or (scope == "thread" and call.own_thread)
            or self._intake.access.rules.is_admin(call.person)
        )


def _refusal(scope: Scope, call: Call) -> MayNotChange:
    return MayNotChange(scope, call.scopes.get("channel", ""))


def _name_of(persona: str, known: Mapping[str, str]) -> str:
    """Return the name of a persona; "" if it has none, or an operator has changed it since."""
    return next((name for name, text in known.items() if persona and text == persona), "")


def _given(text: str) -> str:
    """Return a choice as it is stored; DEFAULT is none."""
    return "" if text.casefold() == DEFAULT else text


def _line(tool: Listed) -> str:
    asks = say("I ask you first") if tool.kind != "reads" else ""
    parts = in_code(tool.name), say(tool.does), asks
    return ": ".join(filter(None, parts))


def _of(used: int, most: int | None) -> str:
    if most is None:
        return number(used)
    return say("{used} of {most}", used=number(used), most=number(most))


def _summed(found: Iterable[Sums]) -> str:
    total = Sums()
    for one in found:
        total = total.plus(one)
    used = {"read": number(total.read), "written": number(total.written)}
    text = say("1 question, {read} tokens read, {written} written", **used)
    if total.questions != 1:
        many = "{questions} questions, {read} tokens read, {written} written"
        text = say(many, questions=number(total.questions), **used)
    return f"{text}, ${total.money / MILLION:,.4f}" if total.money else text


def excuse(error: ParleyError) -> str:
    """Return the sentence for a person whose command was not carried out."""
    # The apologies of these errors are about questions and answers.
    is_away = isinstance(error, StoreUnavailable | SurfaceError)
    return say(AWAY) if is_away and not isinstance(error, TooFewReplicas) else error.apology


_FORMS: Mapping[Part, str] = {
    "answers": later("Answers in {place}"),
    "access": later("Access in {place}"),
}
_OF_THREADS = ("quiet", "follow")  # which are not there in a DM
_FOLLOWS: Mapping[str, str] = {
    "auto": later(
        "In a thread where I have answered, I answer everything while only one person writes "
        "there. When others join, I answer mentions and replies."
    ),
    "all": later("In a thread where I have answered, I answer everything."),
    "mention": later("In a thread I only answer mentions and replies."),
}
_FORGET_SECONDS = 1.0  # in which most people are forgotten; a platform waits longer for an answer
_POLL = Backoff(first=0.1, longest=5.0)  # somebody may press the button a hundred times
_HELP_SECONDS = 1.0  # that help waits for the store: the rest needs no store
