"""Changes to admitted turns: what people press, stop and delete."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from bot import audit
from bot.access.quotas import Estimate, Quota
from bot.domain import Consent, Person, Place, Rating, ThreadKey, Turn
from bot.turns.records import write_turn
from bot.turns.script import Limits, QueueScript, person_key, write_quota

_ANYTHING = Quota()


class TurnChanges:
    """Changes turns that were admitted; every method raises StoreUnavailable."""

    def __init__(self, script: QueueScript, limits: Limits) -> None:
        self._script = script
        self._limits = limits.waiting_per_person, limits.waiting

    async def regenerate(
        self,
        turn_id: str,
        *,
        person_id: str,
        press_id: str,
        place: Place | None = None,
        text: str = "",
        left_out: int = 0,
        quota: Quota = _ANYTHING,
        estimate: Estimate | int = 0,
    ) -> None:
        """Queue an ended turn again, with the messages that it has. Raises Refused.

        Only the asker may do so, only for the last turn of a thread, and only while no turn waits
        or runs there. A repeated `press_id` changes nothing. `text` replaces the question. The
        turn reserves as an admission does.
        """
        added = json.dumps(place, ensure_ascii=False) if place else ""
        reserved = *self._limits, write_quota(quota, estimate)
        await self._script.run(
            "regenerate", turn_id, person_id, press_id, added, *reserved, text, left_out
        )

    async def continue_answer(
        self,
        turn_id: str,
        following: Turn,
        *,
        person_id: str,
        quota: Quota = _ANYTHING,
        estimate: Estimate | int = 0,
    ) -> None:
        """Queue a turn that continues the answer of a thread's last turn. Raises Refused.

        The conditions are those of `regenerate`. A repeated call changes nothing.
        """
        await self._follow("continue", turn_id, following, person_id, quota, estimate)

    async def branch(
        self,
        turn_id: str,
        following: Turn,
        *,
        person_id: str,
        quota: Quota = _ANYTHING,
        estimate: Estimate | int = 0,
    ) -> bool:
        """Queue a turn in the place of another one, which is kept with what followed it.

        Both are versions of it, 20 at most. Only the asker may do so, and only while no turn waits
        or runs in the thread. A turn that has no answer, and the same question, is queued again
        instead; then the result is False. A repeated call changes nothing. Raises Refused.
        """
        answer = await self._follow("branch", turn_id, following, person_id, quota, estimate)
        return bool(answer == "admitted")

    async def _follow(
        self,
        verb: str,
        turn_id: str,
        following: Turn,
        person_id: str,
        quota: Quota,
        estimate: Estimate | int,
    ) -> Any:
        """Run a verb that admits a turn after or beside another one."""
        fields, reserved = write_turn(following), (*self._limits, write_quota(quota, estimate))
        which = turn_id, person_id, following.id
        return await self._script.run(verb, *which, fields, *reserved)

    async def open(self, turn_id: str, *, person_id: str) -> None:
        """Open a version that was kept, with what followed it, instead of the one that is open.

        The conditions are those of `branch`. A repeated call changes nothing. Raises Refused.
        """
        await self._script.run("open", turn_id, person_id)

    async def rate(
        self, turn_id: str, *, person_id: str, rating: Rating | Literal[""]
    ) -> tuple[str, bool]:
        """Store a person's rating of an answer, until the exchange is forgotten or replaced.

        An empty rating removes it. Return the model of the answer, or empty if it is not known, and
        whether this is the person's first rating of the answer. Raises NotRemembered, or ThreadBusy
        if the turn has not ended.
        """
        answer = await self._script.run("rate", turn_id, person_id, rating)
        model, which = answer if isinstance(answer, list) else ("", "")
        return model, which == "first"

    async def stop(self, turn_id: str, *, person_id: str = "") -> bool:
        """Ask the worker of a turn to end it; False if the turn has ended or is not known.

        Raises NotTheAsker if another person has asked; an empty `person_id` may stop any turn.
        """
        return bool(await self._script.run("stop", turn_id, person_id))

    async def stop_thread(self, thread: ThreadKey) -> bool:
        """Ask for the end of the turn that runs in a thread; False if none does."""
        return bool(await self._script.run("stop_thread", str(thread)))

    async def stop_own(
        self, turn_id: str, thread: ThreadKey, person: Person, *, channel: str = ""
    ) -> bool:
        """Ask for the end of a person's answers; see `Answers.stop_own`."""
        within = str(replace(thread, channel=channel, thread="")) if channel else ""
        key = person_key(thread.platform, person)
        return bool(await self._script.run("stop_own", turn_id, str(thread), key, within))

    async def decide(
        self,
        turn_id: str,
        call_id: str,
        consent: Consent,
        *,
        person_id: str,
        is_admin: bool,
        words: str = "",
    ) -> bool:
        """Store what a person answers for a call of a tool; the turn goes on at once.

        `words` are what they have written into the form of a server's question. False if nothing
        waits for it any more. Raises NotTheAsker if another person has asked, and this one is no
        admin, or it is more than a denial of such a question.
        """
        answer = person_id, consent, "1" if is_admin else "", words
        return bool(await self._script.run("decide", turn_id, call_id, *answer))

    async def forget(
        self,
        *turn_ids: str,
        asked_at: float | None = None,
        platform: str = "",
        messages: Sequence[str] = (),
    ) -> None:
        """Drop turns that wait, run or are remembered, or are admitted in the next ten minutes.

        `asked_at` is when the last of them was asked, in seconds since the epoch; None if that is
        not known. If it is more than ten minutes ago, unknown ids are ignored. The turns of which
        `messages` of the platform show the answer are dropped, too, except for messages that a
        worker has deleted.
        """
        asked = "" if asked_at is None else int(asked_at * 1000)
        await self._script.run("forget", asked, platform, len(turn_ids), *turn_ids, *messages)

    async def forget_words(self, *turn_ids: str, asked_at: float) -> list[str]:
        """Forget turns as `forget` does, with their answers, and with their versions.

        Return the ids of all that went. Late writes can then not be corrected.
        """
        ids = await self._script.run("forget_words", int(asked_at * 1000), *turn_ids)
        return ids if isinstance(ids, list) else []

    async def reset(self, thread: ThreadKey, event_id: str = "", *, by: str = "") -> None:
        """Forget all that was said in a thread, and stop the answer that is running there.

        `event_id` names the command, which counts once, in a thread whose replies have buttons;
        they are removed. Turns that wait are answered. Earlier messages are not read as context any
        more. `by` is the id of the person who wants it, for auditors.
        """
        if await self._script.run("reset", str(thread), event_id):
            audit.note("reset", thread=thread, by=by)
