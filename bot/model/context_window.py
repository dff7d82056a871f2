"""Fits each prompt into the context window of a model."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

from bot.domain import FileText, Message, Preferences, Tool
from bot.errors import ModelError, PicturesRefused, PromptRefused, PromptTooLong, ToolsRefused
from bot.files.problem import Problem
from bot.model.client import NOTHING_CHOSEN, Answer, Endpoint
from bot.model.server_info import ServerWatch
from bot.ports import OnThought
from bot.text.context import block, with_context
from bot.text.files import beginning, file_block, with_files, without_pictures
from bot.text.graphemes import CUT, left_out, without_middle
from bot.text.rounds import as_context, divided, with_arguments, with_notice, with_results
from bot.text.sanitize import as_words
from bot.tokens.counters import TokenEstimator, picture_tokens

log = logging.getLogger(__name__)

# Shorter prompts are counted in the event loop; starting a thread would take longer.
_INLINE_CHARACTERS = 10_000
_SAFETY = 0.97  # of what a server's figures allow
# A server's count of a prompt calibrates the counter if the prompt has this share of the room: in
# shorter ones, most of the difference is due to the template.
_LEAST_CALIBRATED = 0.5
# Of a server's count to ours; beyond them, one of the two is wrong.
_LEAST_RATIO, _MOST_RATIO = 0.5, 3.0
# Of a refused prompt, if the refusal has no context below it; and the least that is sent.
_REFUSED_SHARE = 0.5
_LEAST_SHARE = 0.1
_LEAST_ROOM = 64  # tokens; a smaller context that a server reports is ignored
# Of the budget, for the contexts of all messages.
_CONTEXT_SHARE = 0.25
# Of the budget, for the pictures, and of the rest for the files of all messages: one picture of any
# size fits beside a question by default.
_FILES_SHARE = 0.6
_NAMES_SHARE = 0.2  # of that, for the names of earlier files
_LONGEST_TOKENS = 12  # characters, more than any token has by our count
_WORD_LENGTH = 3  # characters for which most texts have less than a token
# Of the budget, for the system prompt with what people chose: the question needs room, too.
_SYSTEM_SHARE = 0.5
_CUT_STEPS = 4_000  # of a long message: it is cut to one of so many lengths
# Of the budget, for the results of all calls, for the calls' arguments, and for what tools say of
# themselves.
_RESULTS_SHARE, _ARGUMENTS_SHARE, _TOOLS_SHARE = 0.4, 0.2, 0.3
_LEAST_RESULT = 400  # characters of each; older results are left out for them
_TOOLLESS_SECONDS = 600.0  # after a refusal of tools
Count = Callable[[Sequence[Message]], int]


class ContextWindowModel:
    """Drops and shortens messages until the prompt fits; an `Endpoint`.

    `prompt_tokens` and `answer_tokens` are the limits of prompt and answer, in tokens. By the count
    of `counter` a prompt may fill a share of `prompt_tokens`; counts of the server calibrate it. If
    the server refuses a prompt as too long, a shorter one is sent, once. Control tokens in
    questions and answers are sent and counted as plain text. Pictures that the model does not see,
    or that have no room, are among the files of the answer, with the reason; if the server refuses
    them, the prompt is sent without, once. So it is with tools; what the model should read of their
    results is then context of the question.
    """

    def __init__(
        self,
        *,
        model: Endpoint,
        counter: TokenEstimator,
        watch: ServerWatch | None,
        prompt_tokens: int,
        answer_tokens: int,
    ) -> None:
        self.name = model.name
        self._counter = counter
        self._model = model
        self._watch = watch
        self._most_budget = self._budget = prompt_tokens
        self._reported: int | None = None
        self._answer_tokens = answer_tokens
        self._toolless_until = -math.inf  # loop time

    @asynccontextmanager
    async def stream(
        self,
        prompt: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        deadline: float,
        preferences: Preferences = NOTHING_CHOSEN,
        on_thought: OnThought | None = None,
    ) -> AsyncIterator[Answer]:
        """Send as much of a prompt as fits, and wait for the first delta.

        Raises ModelError; PromptTooLong only if the shorter prompt was refused, too.
        """
        if self._watch:
            await self._watch.refresh(deadline=deadline)
            self._set_budget(self._watch.context)
        question, _ = divided(prompt)
        is_blind = question[-1].pictures and not await self.sees()
        problem, room = Problem.PICTURE if is_blind else "", self._room
        if tools and await self.takes_tools() is False:
            tools = ()
        tools = self._affordable(tools, room)
        answer, counted, too_long, toolless = None, 0, None, None
        send = partial(
            self._model.stream, deadline=deadline, preferences=preferences, on_thought=on_thought
        )
        fitted = await self._fit(prompt, tools, room, problem)
        try:
            async with AsyncExitStack() as stack:
                while answer is None:
                    try:
                        answer = await stack.enter_async_context(send(fitted.messages, tools=tools))
                    except PicturesRefused as refusal:
                        log.warning("Sending no pictures to %s: %s", self.name, refusal)
                        problem = Problem.NOT_TAKEN
                        fitted = await self._fit(prompt, tools, room, problem)
                    except PromptRefused as refusal:
                        # Templates refuse calls and results in many words.
                        if not tools:
                            raise
                        log.warning("Sending no tools to %s: %s", self.name, refusal)
                        tools, toolless = (), refusal
                        fitted = await self._fit(prompt, tools, room, problem)
                    except PromptTooLong as refusal:
                        room, refused = self._room_after(fitted, tools, refusal), fitted.messages
                        fitted = await self._fit(prompt, tools, room, problem)
                        if too_long or fitted.messages == refused:
                            raise
                        log.warning("Sending a shorter prompt to %s: %s", self.name, refusal)
                        too_long = refusal
                if too_long:
                    self._learn(too_long)
                if isinstance(toolless, ToolsRefused):
                    self._toolless_until = asyncio.get_running_loop().time() + _TOOLLESS_SECONDS
                answer.left_out, answer.dropped = fitted.left_out, fitted.dropped
                answer.files = fitted.question.files
                answer.estimated = counted = self._count(fitted.messages, tools)
                yield answer
        except ModelError:
            if self._watch:
                self._watch.expire()
            raise
        finally:
            least = self._room * _LEAST_CALIBRATED
            is_exact = not fitted.question.pictures
            if answer and answer.prompt_tokens and counted >= least and is_exact:
                self._calibrate(answer.prompt_tokens / counted)

    async def sees(self) -> bool:
        """Whether the model sees pictures."""
        return await self._model.sees()

    async def takes_tools(self) -> bool | None:
        """Whether the model takes tools, if that is known: not for some time after a refusal."""
        if asyncio.get_running_loop().time() < self._toolless_until:
            return False
        return await self._model.takes_tools()

    def _set_budget(self, context: int | None) -> None:
        """Set the budget by the context that the server reports, until it reports another one."""
        if context is not None and context != self._reported:
            self._reported = context
            room = max(context - self._answer_tokens, context - context // 2)
            self._budget = min(self._most_budget, room)

    @property
    def _room(self) -> int:
        """The tokens by our count that a prompt may have."""
        return int(self._budget * self._counter.share / self._counter.ratio)

    def _affordable(self, tools: Sequence[Tool], room: int) -> Sequence[Tool]:
        """Return the first tools, as many as have room."""
        costs = [*accumulate(self._count((), [one]) for one in tools)]
        number = bisect_right(costs, room * _TOOLS_SHARE)
        if number < len(tools):
            log.warning("%s has no room for %d of the tools", self.name, len(tools) - number)
        return tools[:number]

    def _count(self, messages: Sequence[Message], tools: Sequence[Tool]) -> int:
        """Return about the tokens of a prompt with these tools."""
        return self._counter.count([*messages, *map(_as_message, tools)])

    async def _fit(
        self, prompt: Sequence[Message], tools: Sequence[Tool], budget: int, problem: str
    ) -> FittedPrompt:
        """Fit a prompt, in another thread if it is long or has files.

        Its pictures come first, unless there is a `problem` with all of them.
        """
        budget -= self._count((), tools)
        # What cannot fit is not searched for control tokens: nothing else runs meanwhile.
        most = int(budget * _FILES_SHARE * _LONGEST_TOKENS)
        _, rounds = divided(prompt)
        if tools or rounds:
            prompt = with_notice(prompt)
        if rounds and not tools:
            room = int(budget * _CONTEXT_SHARE * _WORD_LENGTH)
            prompt = as_context(prompt, characters=_characters_of_each(rounds, room))
        question, rounds = divided(prompt)
        each = _characters_of_each(rounds, most)
        rounds = [replace(one, text=one.text[:each]) if one.call else one for one in rounds]
        needs = list(accumulate(map(picture_tokens, question[-1].pictures), initial=0))
        seen = 0 if problem else bisect_right(needs, budget * _FILES_SHARE) - 1
        prompt = [
            replace(one, files=tuple(beginning(it, most) for it in one.files))
            for one in (*without_pictures(question, problem, but=seen), *rounds)
        ]

        def fitting() -> FittedPrompt:
            return fit(as_words(prompt), budget=budget - needs[seen], count=self._counter.count)

        length = sum(len(it.text) + sum(map(len, it.context)) for it in prompt)
        if length <= _INLINE_CHARACTERS and not any(it.files for it in prompt):
            return fitting()
        return await asyncio.to_thread(fitting)

    def _room_after(
        self, refused: FittedPrompt, tools: Sequence[Tool], refusal: PromptTooLong
    ) -> int:
        """Return the tokens by our count that a prompt may have after this refusal."""
        counted = self._count(refused.messages, tools)
        room = refusal.room(answer=self._answer_tokens)
        share = _REFUSED_SHARE
        if room is not None and _LEAST_ROOM <= room < counted:
            share = max(room / counted * _SAFETY, _LEAST_SHARE)
        return int(counted * share)

    def _learn(self, refusal: PromptTooLong) -> None:
        """Save the context in a refusal after an answer; others may only repeat a person's text."""
        room = refusal.room(answer=self._answer_tokens)
        if room is not None and room >= _LEAST_ROOM:
            self._budget = min(self._budget, room)

    def _calibrate(self, ratio: float) -> None:
        """Follow a server's count: at once if it is more, by half if it is less."""
        ratio = min(max(ratio, _LEAST_RATIO), _MOST_RATIO)
        self._counter.ratio = max(ratio, (self._counter.ratio + ratio) / 2)


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """The messages that fit, with files in their texts; the question has those that were sent."""

    messages: tuple[Message, ...]
    dropped: int  # exchanges
    left_out: int  # characters of the new message
    unseen: tuple[FileText, ...]  # files of earlier messages that are only named

    @property
    def question(self) -> Message:
        """The new message."""
        return divided(self.messages)[0][-1]


def fit(messages: Sequence[Message], *, budget: int, count: Count) -> FittedPrompt:
    """Return as much of a composed prompt as `count` finds within `budget`, in tokens.

    Exchanges are dropped whole, oldest first. If not even the newest fits, its question loses its
    middle, so that the answer to a long paste stays. The system prompt and the new message always
    stay; if the message is too long, the mark "[…]" replaces its middle. If the system prompt
    leaves no room even for the mark, the message stays whole, and the server decides. Contexts get
    at most a quarter of the budget, and files, from their beginnings, three fifths: the names of
    the earlier ones first, then those of the newest message, and no room that the new message
    needs. Files of dropped exchanges stay. If the new message has files, those that they displace
    are among them. Each part of the system prompt's context, such as the persona, is left out if it
    goes beyond half of the budget. Rounds of calls that follow the new message stay, with what
    their share has room for of the results.
    """
    messages, rounds = divided(messages)
    rounds = _fitted_rounds(rounds, budget=budget, count=count)
    budget -= count(rounds)
    fitted = _fitted(messages, budget=budget, count=count)
    *before, new = fitted.messages
    if new.files and fitted.unseen:
        previous = _fitted(messages[:-2], budget=budget, count=count)
        displaced = tuple(
            replace(one, text="", problem=Problem.NO_ROOM_NOW)
            for one in fitted.unseen
            if one not in previous.unseen
        )
        new = replace(new, files=(*new.files, *displaced))
    return replace(fitted, messages=(*before, new, *rounds))


def _fitted_rounds(rounds: Sequence[Message], *, budget: int, count: Count) -> Sequence[Message]:
    """Return rounds in which results and arguments have their shares; the newest come first."""
    if not rounds:
        return rounds
    asks = [one for one in rounds if one.calls]
    results = [one for one in rounds if one.call]
    longest = max((len(one.text) for one in results), default=0)
    step, room = longest // _CUT_STEPS + 1, int(budget * _RESULTS_SHARE)

    def cost(newest: int, characters: int) -> int:
        return count(with_results(results, newest=newest, characters=characters))

    newest = max(_largest(len(results), lambda it: cost(it, _LEAST_RESULT) <= room), 1)
    steps = _largest(longest // step + 1, lambda it: cost(newest, it * step) <= room)
    rounds = with_results(rounds, newest=newest, characters=steps * step)
    most = count(with_arguments(asks, newest=0)) + int(budget * _ARGUMENTS_SHARE)
    number = sum(len(one.calls) for one in asks)
    kept = _largest(number, lambda it: count(with_arguments(asks, newest=it)) <= most)
    return with_arguments(rounds, newest=kept)


def _characters_of_each(rounds: Sequence[Message], most: int) -> int:
    """Return how many characters of each result stay if all together have at most so many."""
    lengths = [len(one.text) for one in rounds if one.call]
    return _largest(max(lengths, default=0), lambda it: sum(min(it, n) for n in lengths) <= most)


def _fitted(messages: Sequence[Message], *, budget: int, count: Count) -> FittedPrompt:
    *earlier, last = messages
    head = earlier[:1] if earlier and earlier[0].role == "system" else []
    plain = earlier[len(head) :]
    head = [_with_wishes(one, budget=int(budget * _SYSTEM_SHARE), count=count) for one in head]
    asked = _cut_middle(
        _without_context(last), budget=budget, cost=lambda shorter: count([*head, shorter])
    )
    blocks, file_room = [""] * (len(plain) + 1), int(budget * _FILES_SHARE)
    names = _naming_costs(plain, room=int(file_room * _NAMES_SHARE), count=count)
    named = sum(names)
    left = min(file_room, budget - count([*head, asked])) - named
    files, blocks[-1], left = _beginnings(last.files, room=left, count=count)
    file_room, unseen = left + named, list[FileText]()
    new, room = _with_newest_context(
        replace(asked, context=last.context),
        room=int(budget * _CONTEXT_SHARE),
        count=count,
        fits=lambda whole: count([*head, with_files(whole, blocks[-1])]) <= budget,
    )
    file_room = min(file_room, budget - count([*head, with_files(new, blocks[-1])]))
    earlier = [*plain]
    for at in range(len(plain) - 2, -1, -2):
        earlier[at], room = _with_newest_context(plain[at], room=room, count=count)
        named -= names[at]
        shown, blocks[at], left = _beginnings(plain[at].files, room=file_room - named, count=count)
        file_room = left + named
        unseen += [
            one
            for one, kept in zip(plain[at].files, shown, strict=True)
            if one.text and not kept.text
        ]

    def newest(exchanges: int) -> list[Message]:
        start = len(earlier) - 2 * exchanges
        first, *rest = map(with_files, [*earlier[start:], new], blocks[start:])
        return [*head, with_files(first, "\n".join(filter(None, blocks[:start]))), *rest]

    fitting = _largest(len(earlier) // 2, lambda exchanges: count(newest(exchanges)) <= budget)
    if earlier and not fitting:
        *_, question, answered = plain
        question = _cut_middle(
            _without_context(question),
            budget=budget,
            cost=lambda shorter: count([*newest(0), shorter, answered]),
        )
        earlier[-2:] = [question, answered]
        fitting = int(question.text != CUT and count(newest(1)) <= budget)
    *before, new = newest(fitting)
    return FittedPrompt(
        (*before, replace(new, files=files)),
        dropped=len(earlier) // 2 - fitting,
        left_out=left_out(last.text, asked.text),
        unseen=tuple(unseen),
    )


def _as_message(tool: Tool) -> Message:
    """Return about what a template shows of a tool."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.schema}
    return Message("system", json.dumps({"type": "function", "function": function}))


def _with_wishes(system: Message, *, budget: int, count: Count) -> Message:
    """Return the system prompt with what people chose, as far as it fits."""
    whole = _without_context(system)
    for wish in system.context:
        longer = Message(system.role, f"{whole.text}\n\n{wish}".strip())
        whole = longer if count([longer]) <= budget else whole
    return whole


def _beginnings(
    files: Sequence[FileText], *, room: int, count: Count
) -> tuple[tuple[FileText, ...], str, int]:
    """Return as many characters of each file as fit, their block, and the tokens left."""
    if not files:
        return (), "", room
    longest = max(len(file.text) for file in files)
    step = longest // _CUT_STEPS + 1

    def shortened(steps: int) -> tuple[FileText, ...]:
        return tuple(beginning(file, steps * step) for file in files)

    def cost(shorter: Sequence[FileText]) -> int:
        return count([Message("user", file_block(shorter))])

    kept = shortened(_largest(longest // step + 1, lambda steps: cost(shortened(steps)) <= room))
    left = room - cost(kept)
    return (kept, file_block(kept), left) if left >= 0 else (kept, "", room)


def _naming_costs(messages: Sequence[Message], *, room: int, count: Count) -> list[int]:
    """Return for each message how many tokens name its files; 0 for old ones without room."""
    costs = [0] * len(messages)
    for at in range(len(messages) - 2, -1, -2):
        if files := messages[at].files:
            block = file_block(beginning(one, 0) for one in files)
            costs[at] = count([Message("user", block)])
            if sum(costs) > room:
                costs[at] = 0
                break
    return costs


def _without_context(message: Message) -> Message:
    return Message(message.role, message.text)


def _with_newest_context(
    message: Message, *, room: int, count: Count, fits: Callable[[Message], bool] = lambda _: True
) -> tuple[Message, int]:
    """Return a message with the newest part of its context that fits, and the tokens left.

    If not even the newest text of the context fits, its middle is cut.
    """

    def cost(context: Sequence[str]) -> int:
        return count([Message(message.role, block(context))])

    def is_small(context: Sequence[str]) -> bool:
        whole = with_context(replace(message, context=tuple(context)))
        return cost(context) <= room and fits(whole)

    texts = message.context
    fitting = _largest(len(texts), lambda number: is_small(texts[len(texts) - number :]))
    context = texts[len(texts) - fitting :]
    if texts and not fitting:
        newest = Message(message.role, texts[-1])
        shorter = _cut_middle(newest, budget=room, cost=lambda one: cost([one.text])).text
        context = (shorter,) if shorter != CUT and is_small([shorter]) else ()
    if not context:
        return _without_context(message), room
    return with_context(replace(message, context=context)), room - cost(context)


def _largest(limit: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `limit` that fits; all smaller ones fit, too."""
    beyond = 1
    while beyond <= limit and fits(beyond):
        beyond *= 2
    between = range(beyond // 2 + 1, min(beyond, limit + 1))
    return beyond // 2 + bisect_left(between, True, key=lambda number: not fits(number))


def _cut_middle(message: Message, *, budget: int, cost: Callable[[Message], int]) -> Message:
    """Return the message with as little cut from its middle as needed; unchanged if none fits."""
    text = message.text
    if cost(message) <= budget or cost(Message(message.role, CUT)) > budget:
        return message
    step = len(text) // _CUT_STEPS + 1

    def shortened(steps: int) -> Message:
        return Message(message.role, without_middle(text, steps * step))

    return shortened(_largest(len(text) // step, lambda it: cost(shortened(it)) <= budget))
