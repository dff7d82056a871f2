"""Rounds of a model's calls: each is asked for first if it has effects, and made once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
import unicodedata
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from prometheus_client import Counter

from bot import audit
from bot.domain import (
    UNKNOWN,
    WAITS_FOR_ANSWER,
    WAITS_FOR_CONSENT,
    Consent,
    ConsentNeeded,
    Delta,
    Json,
    Message,
    Source,
    Start,
    StepNote,
    StepNotes,
    ToolCall,
    Turn,
)
from bot.errors import EmptyAnswer, QuotaUsed
from bot.languages import later, number, say
from bot.model.tool_calls import MOST_ARGUMENTS, MOST_CALLS
from bot.ports import Model, OnThought
from bot.text.sanitize import in_code, one_line
from bot.tools.questions import Question, ToolAsks
from bot.tools.steps import WITH_EFFECTS, Round, Steps
from bot.tools.toolset import IsAllowed, Offered, ToolBroken, ToolFailed, ToolResult
from bot.tracing import span

log = logging.getLogger(__name__)

MOST_ROUNDS = 8
_MOST_QUESTIONS = 4  # of a server, in one call
# Of the arguments that a person is to allow: characters of the values together, of each name, and
# names.
_MOST_SHOWN, _MOST_NAME, _MOST_NAMES = 600, 40, 12
_MOST_RESULT = 60_000  # characters that are kept; the model reads its share of them
_CALL_SECONDS = 60.0
_TEXT_APART = "\n\n"  # between the texts of two rounds
_UNKNOWN = ToolResult(
    "Nobody knows whether this was done: the connection to the tool broke in the middle. It is not"
    " called again. Tell the person so, and how they can find out.",
    outcome=UNKNOWN,
    foreign=False,
)
_NO_CALLS = "The person has no calls of tools left today."
_DENIED = "The person has denied this call, so it was not made. Do not ask for it again."
_LATE = "Nobody has allowed this call in time, so it was not made."
_TOO_MANY = "Its server asks too many questions, so the call was not completed."
_NOT_COMPLETED = "so the call was not completed. Do not make it again."
_UNANSWERED = f"Nobody has answered the question of its server in time, {_NOT_COMPLETED}"
_REFUSAL = f"The person does not answer the question of its server, {_NOT_COMPLETED}"
_CALLS = Counter("parley_tool_calls_total", "Calls of tools", ["server", "tool", "outcome"])


class ToolLoop:
    """Answers one question with tools; `steps` are those of its turn.

    Calls that only read are made at once. For any other one a person is asked, unless they have
    allowed the tool for always, no earlier answer to the question has had effects, and nobody else
    may have written a part of the prompt: `is_foreign` says so at first. What was begun by an
    earlier attempt and has no result is called again if its kind allows that, and is unknown
    otherwise; so it is if the connection breaks.

    A server that asks a person first has not finished the call. What it asks is saved before, and
    whichever worker has the answer sends it with the call's next request.
    """

    def __init__(
        self,
        *,
        model: Model,
        steps: Steps,
        offered: Sequence[Offered],
        turn: Turn,
        is_always_allowed: IsAllowed,
        consent_seconds: float,
        reply_seconds: float,
        is_foreign: bool = False,
        on_thought: OnThought | None = None,
    ) -> None:
        self._model = model
        self._on_thought = on_thought
        self._steps = steps
        self._offered = {one.tool.name: one for one in offered}
        self._turn = turn
        self._is_always_allowed = is_always_allowed
        self._consent_seconds = consent_seconds
        self._deadline = asyncio.get_running_loop().time() + reply_seconds
        self._notes: dict[str, StepNote] = {}
        self._sources: list[Source] = []
        self._is_foreign = is_foreign  # somebody else may have written a part of the prompt

    async def stream(self, prompt: Sequence[Message]) -> AsyncGenerator[Delta]:
        """Yield the deltas of the answer, all rounds together; see `Model.stream`.

        Ends with a ConsentNeeded if a person must answer first. Raises ModelError,
        StoreUnavailable, LeaseLost and QuestionEdited.
        """
        messages, said, number = [*prompt], "", 0
        while True:
            if done := self._steps.round(number):
                if done.text:
                    yield _apart(said) + done.text
            else:
                async with aclosing(self._round(number, messages, said)) as deltas:
                    async for delta in deltas:
                        if isinstance(delta, Round):
                            done = delta
                        else:
                            yield delta
                if done and done.calls:
                    await self._steps.save_round(number, done)
            if not done or not done.calls:
                return
            said += _apart(said) + done.text if done.text else ""
            messages.append(Message("assistant", done.text, calls=done.calls))
            for call in done.calls:
                async with aclosing(self._step(call)) as parts:
                    async for part in parts:
                        if isinstance(part, ToolResult):
                            messages.append(Message("tool", self._read(part), call=call))
                        else:
                            yield part
                        if isinstance(part, ConsentNeeded):
                            return
            number += 1

    async def _round(
        self, number: int, messages: Sequence[Message], said: str
    ) -> AsyncGenerator[Delta | Round]:
        """Yield what the model says now, below what it has `said`, and at last the round."""
        may_call = number < MOST_ROUNDS and self._seconds_left() > 0
        tools = [one.tool for one in self._offered.values()] if may_call else []
        text, calls = "", list[ToolCall]()
        try:
            async with aclosing(
                self._model.stream(messages, tools=tools, on_thought=self._on_thought)
            ) as deltas:
                async for delta in deltas:
                    match delta:
                        case ToolCall():
                            calls.append(delta)
                        case str():
                            before, text = text, text + delta
                            yield delta if before else _apart(said) + delta
                        case Start():
                            text, calls = "", []
                            yield delta
                            if said:
                                yield said
                        case _:
                            yield delta
        except EmptyAnswer:
            # Some models say nothing more once a call is made.
            if not said:
                raise
        named = (
            self._steps.identified(one, number=number, place=place)
            for place, one in enumerate(calls[:MOST_CALLS])
        )
        yield Round(text, tuple(named) if may_call else ())

    async def _step(self, call: ToolCall) -> AsyncGenerator[Delta | ToolResult]:
        """Yield notes on a call, and at last its result, or a ConsentNeeded."""
        offered = self._offered.get(call.name)
        if not (result := self._steps.result(call)):
            try:
                offered, arguments = self._checked(call)
            except ToolFailed as error:
                result = _failure(str(error))
                if self._steps.begun_as(call) in WITH_EFFECTS:
                    # Its tool is gone since then.
                    result = _UNKNOWN
                    self._log(call, offered, "", result.outcome)
            else:
                effect = "" if offered.kind == "reads" else _digest(offered, arguments)
                if effect and not self._steps.has_begun(call):
                    line = _question(offered, arguments, again=self._steps.repeats(effect))
                    consent, left = await self._consent(call, offered, effect, line)
                    if consent is None:
                        yield self._note(call, WAITS_FOR_CONSENT)
                        yield ConsentNeeded(call.id, line, left)
                        return
                    if consent == "deny":
                        result = _failure(_DENIED, later("denied"))
                    elif consent == "late":
                        result = _failure(_LATE, later("not allowed in time"))
                while not result:
                    if not (waits := self._steps.open_question(call)):
                        yield self._note(call, "")
                        try:
                            result = await self._made(call, offered, arguments, effect)
                        except asyncio.CancelledError:
                            if effect and self._steps.has_begun(call):
                                self._log(call, offered, effect, UNKNOWN)
                            raise
                        continue
                    question_id, question = waits
                    line = question.line(offered.server)
                    consent, left = await self._waited(question_id, offered, line, question)
                    if consent is None:
                        yield self._note(call, WAITS_FOR_ANSWER)
                        yield ConsentNeeded(question_id, line, left)
                        return
                    if consent not in ("answer", "done"):
                        if consent == "late":
                            result = _failure(_UNANSWERED, later("not answered in time"))
                        else:
                            result = _failure(_REFUSAL, later("denied"))
                if effect:
                    self._log(call, offered, effect, result.outcome)
            await self._steps.end(call, result)
            server, name = (offered.server, offered.name) if offered else ("", "unknown")
            _CALLS.labels(server, name, result.outcome).inc()
        self._is_foreign |= result.foreign
        yield result
        # Once its sources have their numbers.
        yield self._note(call, result.outcome)

    def _checked(self, call: ToolCall) -> tuple[Offered, Mapping[str, Json]]:
        """Return the tool of a call, and its arguments. Raises ToolFailed if it cannot be made."""
        offered = self._offered.get(call.name)
        if offered is None:
            raise ToolFailed("There is no such tool.")
        if len(call.arguments) > MOST_ARGUMENTS:
            raise ToolFailed("These arguments are too long.")
        try:
            arguments = json.loads(call.arguments or "{}")
        except (ValueError, RecursionError):
            raise ToolFailed("The arguments are no JSON.") from None
        if not isinstance(arguments, dict):
            raise ToolFailed("The arguments must be a JSON object.")
        required = offered.tool.schema.get("required")
        lacking = (
            [it for it in required if isinstance(it, str) and it not in arguments]
            if isinstance(required, list)
            else ()
        )
        if lacking:
            raise ToolFailed(f"These arguments are missing: {', '.join(lacking)}.")
        return offered, arguments

    async def _consent(
        self, call: ToolCall, offered: Offered, effect: str, line: str
    ) -> tuple[Consent | None, float]:
        """Return what was answered, or None and for how many seconds it can still be."""
        if not self._steps.consent(call.id) and self._steps.asked_at(call.id) is None:
            must_ask = self._is_foreign or self._steps.has_effects_before
            must_ask = must_ask or self._steps.repeats(effect)
            if not must_ask and await self._is_always_allowed(self._turn, offered):
                return "always", 0.0
        return await self._waited(call.id, offered, line)

    async def _waited(
        self, call_id: str, offered: Offered, line: str, question: Question | None = None
    ) -> tuple[Consent | None, float]:
        """Ask a person, once; return as `_consent` does."""
        if found := self._steps.consent(call_id):
            return found, 0.0
        asked_at = self._steps.asked_at(call_id)
        if asked_at is None:
            asked_at = await self._steps.ask(call_id, offered, line, question)
        left = asked_at + self._consent_seconds - time.time()
        if left > 0:
            return None, left
        return await self._steps.settle(call_id, "late"), 0.0

    async def _made(
        self, call: ToolCall, offered: Offered, arguments: Mapping[str, Json], effect: str
    ) -> ToolResult | None:
        """Send the next request of a call, unless it may have been sent before.

        Returns its result; None if its server asks a person first.
        """
        asked = self._steps.inputs(call)
        if begun_as := self._steps.begun_as(call):
            # The operator may have declared another kind since then.
            if offered.kind == "effects" or begun_as not in ("reads", offered.kind):
                return _UNKNOWN
        elif self._seconds_left() <= 0:
            return _failure("There is no time left for this call.", later("no time left"))
        else:
            try:
                await self._steps.begin(call, len(asked), offered.kind, effect=effect)
            except QuotaUsed:
                return _failure(_NO_CALLS, later("no calls left"))
        try:
            result = await self._sent(call, offered, arguments, len(asked))
        except ToolAsks as asks:
            so_far = sum(len(one.questions) for one in asked) + len(asks.questions)
            if so_far > _MOST_QUESTIONS or len(asked) == _MOST_QUESTIONS:
                return _failure(_TOO_MANY)
            await self._steps.save_input(call, len(asked), asks)
            return None
        except (ToolBroken, TimeoutError) as error:
            log.warning(
                "Turn %s: %s has not answered: %s", self._turn.id, call.name, error or "too late"
            )
            return _UNKNOWN if effect else _failure(str(error) or "The tool did not answer.")
        except ToolFailed as error:
            log.warning("Turn %s: %s was not called: %s", self._turn.id, call.name, error)
            return _failure(str(error))
        except Exception:
            log.exception("Turn %s: %s cannot be called", self._turn.id, call.name)
            return _UNKNOWN if effect else _failure("The tool failed.")
        if len(result.text) > _MOST_RESULT:
            text = f"{result.text[:_MOST_RESULT]}\n(The rest of this result was left out.)"
            result = replace(result, text=text)
        return result

    async def _sent(
        self, call: ToolCall, offered: Offered, arguments: Mapping[str, Json], number: int
    ) -> ToolResult:
        """Send a request of a call, twice if the connection breaks and its kind allows that.

        Raises ToolAsks, ToolFailed and TimeoutError.
        """
        key, may_repeat = f"{self._turn.id}:{call.id}", offered.kind != "effects"
        while True:
            seconds = max(min(_CALL_SECONDS, self._seconds_left()), 1.0)
            try:
                with span("tool", tool=offered.name, server=offered.server):
                    async with asyncio.timeout(seconds):
                        if number and offered.go_on:
                            return await offered.go_on(arguments, key, self._steps.answered(call))
                        return await offered.run(arguments, key)
            except ToolBroken:
                if not may_repeat:
                    raise
                may_repeat = False

    def _read(self, result: ToolResult) -> str:
        """Return what the model reads of a result, and number what was found."""
        parts = [result.text] if result.text else []
        for one in result.found:
            number = len(self._sources) + 1
            self._sources.append(Source(number, one_line(one.title), one.address))
            parts.append(f"[{number}] {one_line(one.title)}\n{one.address}\n{one.text}".strip())
        return "\n\n".join(parts) or "(nothing)"

    def _note(self, call: ToolCall, outcome: str) -> StepNotes:
        offered = self._offered.get(call.name)
        what = (
            say(offered.sign)
            if offered and offered.sign
            else say("Calling {name}", name=_named(call.name, offered))
        )
        self._notes[call.id] = StepNote(call.id, what, outcome)
        return StepNotes(tuple(self._notes.values()), tuple(self._sources))

    def _log(self, call: ToolCall, offered: Offered | None, effect: str, outcome: str) -> None:
        """Write one line for each call with effects: ids and digests, never words."""
        turn, consent = self._turn, self._steps.consent(call.id) or "always"
        where = (offered.server, offered.name) if offered else ("", call.name)
        audit.note(
            "call",
            id=call.id,
            turn=turn.id,
            thread=turn.key,
            person=turn.person.id,
            server=where[0],
            tool=where[1],
            consent=consent,
            outcome=outcome.replace(" ", "_"),
            arguments=effect[:16],
        )

    def _seconds_left(self) -> float:
        return self._deadline - asyncio.get_running_loop().time()


def _apart(said: str) -> str:
    return _TEXT_APART if said and not said.endswith(_TEXT_APART) else ""


def _digest(offered: Offered, arguments: Mapping[str, Json]) -> str:
    """Name an effect: the same call has the same."""
    written = json.dumps([offered.server, offered.tool.name, arguments], sort_keys=True)
    return f"{hashlib.sha256(written.encode()).hexdigest()} {offered.full_name}"


def _question(offered: Offered, arguments: Mapping[str, Json], *, again: bool) -> str:
    """Return what a person is to allow, on one line.

    No argument hides behind another one: each is shown, and what is cut is counted.
    """
    names = [*arguments][:_MOST_NAMES]
    most = _MOST_SHOWN // max(len(names), 1)
    parts = [f"{_revealed(it, _MOST_NAME)}: {_revealed(arguments[it], most)}" for it in names]
    if more := len(arguments) - len(names):
        parts.append(say("… ({more} more)", more=number(more)))
    written = in_code("{" + ", ".join(parts) + "}")
    name = _named(offered.name, offered)
    if again:
        anew = "I may have done this before. May I call {name} with {written} again?"
        return say(anew, name=name, written=written)
    return say("May I call {name} with {written}?", name=name, written=written)


def _revealed(value: Json, most: int) -> str:
    """Return a value as JSON, cut, and with its invisible characters written out."""
    text = "".join(
        one if unicodedata.category(one)[0] != "C" else json.dumps(one)[1:-1]
        for one in json.dumps(value, ensure_ascii=False)
    )
    if (more := len(text) - most) > 0:
        text = text[:most] + say("… ({more} characters more)", more=number(more))
    return text


def _named(name: str, offered: Offered | None) -> str:
    server = (
        say(" on {server}", server=in_code(offered.server)) if offered and offered.server else ""
    )
    return f"{in_code(offered.name if offered else name)}{server}"


def _failure(sentence: str, outcome: str = later("failed")) -> ToolResult:
    return ToolResult(sentence, outcome=outcome, foreign=False)
