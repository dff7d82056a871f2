"""The page's HTTP API. All data belongs to the authenticated person."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from aiohttp import web

from adapters import live
from adapters.uploads import Uploads
from adapters.web.exports import as_json, as_markdown
from adapters.web.follower import Follower, send_events
from adapters.web.requests import (
    MAY_STAY,
    PERSON,
    SIGNED_IN,
    Unacceptable,
    answer,
    body,
    call_of,
    files_in,
    press_in,
    thread_in,
    turn_id_in,
    upload_in,
)
from adapters.web.shares import DAYS, Share, Shares
from adapters.web.talks import PLACES, PLATFORM, Talk, Talks, is_id, thread_of, title_of, turn_id_of
from bot.access.preferences import Scope
from bot.commands.form import answer_form
from bot.commands.handlers import (
    FORGET,
    FORGET_QUESTION,
    FORGETTING,
    FORGOTTEN,
    Call,
    CommandHandlers,
    HelpContext,
)
from bot.domain import PRESSES, Json, Rating, Standing, ThreadKey, Turn
from bot.errors import NothingAsked, NotRemembered, NotTheLast, Refused
from bot.intake.access import bounded
from bot.intake.intake import Intake
from bot.languages import later, say
from bot.store import Store

_MOST_CONVERSATIONS = 1000  # in one answer
_FORMS = {"md": "text/markdown", "json": "application/json"}  # of all conversations in a file
_RATINGS: Mapping[str, Rating | Literal[""]] = {"good": "good", "bad": "bad", "": ""}
_CHOSEN_HERE = frozenset({"model", "persona", "temperature", "max_tokens"})
_WRITTEN_HERE = _CHOSEN_HERE | {"instructions"}
_WAYS = (
    later("Ask me below. I remember the conversation, but none of your others."),
    later("Add files by the paper clip, by pasting, or by dropping them here."),
    later("At the top, choose the model and its style; rename, export or delete the conversation."),
    later(
        "Below an answer, copy, rate or regenerate it. You can edit each of your questions: what"
        " was there stays, and the arrows beside the question lead back to it."
    ),
)


@dataclass(frozen=True, slots=True)
class Api:
    """The handlers. Each may raise ParleyError, whose `apology` the page shows."""

    store: Store
    intake: Intake
    talks: Talks
    follower: Follower
    uploads: Uploads
    shares: Shares
    about: Mapping[str, Json]

    def routes(self) -> list[web.RouteDef]:
        """Return the paths and their handlers."""
        talk, turn = "/api/conversations/{talk}", "/api/conversations/{talk}/turns/{turn}"
        return [
            web.get("/api/me", self._me),
            web.get("/api/help", self._help),
            web.post("/api/tools/revoke", self._revoke),
            web.post("/api/forget-me", self._forget_me),
            web.get("/api/forget-me", self._forgotten),
            *(web.get(f"{at}/preferences", self._preferences) for at in ("/api", talk)),
            *(web.patch(f"{at}/preferences", self._choose) for at in ("/api", talk)),
            web.put("/api/personas", self._save_persona),
            web.put("/api/files/{file}", self._save_file),
            web.delete("/api/files/{file}", self._drop_file),
            web.get("/api/conversations", self._conversations),
            *(web.get(f"/api/conversations.{form}", self._export_all) for form in _FORMS),
            web.patch(talk, self._change),
            web.delete(talk, self._delete),
            web.get(f"{talk}/events", self._events),
            web.get(f"{talk}/export", self._export),
            web.post(f"{talk}/shares", self._share),
            web.get("/api/shares", self._shares),
            web.delete("/api/shares/{name}", self._revoke_share),
            web.post(f"{talk}/questions", self._ask),
            web.post(f"{turn}/stop", self._stop),
            web.post(f"{turn}/regenerate", self._regenerate),
            web.post(f"{turn}/continue", self._go_on),
            web.post(f"{turn}/open", self._open),
            web.post(f"{turn}/edit", self._edit),
            web.post(f"{turn}/rate", self._rate),
            web.get(f"{turn}/question", self._question),
            web.get(f"{turn}/thoughts", self._thoughts),
            web.post(f"{turn}/consent", self._decide),
            web.post(f"{turn}/delete", self._delete_turn),
        ]

    async def _me(self, request: web.Request) -> web.Response:
        person = request[PERSON]
        return answer({"id": person.id, "name": person.name, **self.about})

    async def _help(self, request: web.Request) -> web.Response:
        commands, call = CommandHandlers(self.intake), call_of(request)
        return answer(
            {
                "help": await commands.help(call, HelpContext(ways=[*map(say, _WAYS)], written="")),
                "usage": await commands.run("usage", call),
                "tools": [*await commands.tools(call)],
                "allowed": [*await commands.allowed(call)],
                "question": say(FORGET_QUESTION),
                "yes": say(FORGET),
            }
        )

    async def _revoke(self, request: web.Request) -> web.Response:
        name = str((await body(request)).get("name"))
        return answer({"said": await CommandHandlers(self.intake).revoke(call_of(request), name)})

    async def _forget_me(self, request: web.Request) -> web.Response:
        notice = await CommandHandlers(self.intake).forget_me(call_of(request))
        return answer({"said": notice, "done": notice == say(FORGOTTEN)}, status=202)

    async def _forgotten(self, request: web.Request) -> web.Response:
        done = await self.intake.has_forgotten(PLATFORM, request[PERSON])
        return answer({"said": say(FORGOTTEN if done else FORGETTING), "done": done})

    async def _conversations(self, request: web.Request) -> web.Response:
        """Return the conversations; those with all the words of a search, in title or talk."""
        person, words = request[PERSON], request.query.get("search", "")[:200].split()
        all_talks = (await self.talks.all_of(person))[:_MOST_CONVERSATIONS]
        left = {
            thread_of(person, one.id): [it for it in words if it.lower() not in one.title.lower()]
            for one in all_talks
        }
        said = await self.intake.lookup.search(left)
        found: list[Json] = []
        for talk, (thread, missing) in zip(all_talks, left.items(), strict=True):
            if passage := said.get(thread):
                turn = passage.turn_id.rpartition(":")[2]
                found.append({**asdict(talk), "said": passage.text, "turn": turn})
            elif not missing:
                found.append(asdict(talk))
        return answer(found)

    async def _change(self, request: web.Request) -> web.Response:
        """Rename a conversation, or pin, archive or bring it back."""
        (thread, talk), sent = await self._known(request), await body(request)
        title, place = sent.get("title"), sent.get("place")
        if title is None and isinstance(place, str) and place in PLACES:
            await self.talks.put(thread, PLACES[place])
        elif isinstance(title, str) and title.strip():
            await self.talks.rename(thread, title)
        else:
            raise Unacceptable(400, say("A conversation needs a title."))
        await live.announce(self.store, thread)
        talk = await self.talks.find(thread) or talk
        return answer({"title": talk.title, "place": talk.place})

    async def _preferences(self, request: web.Request) -> web.Response:
        call, scope = await self._place(request)
        form = await CommandHandlers(self.intake).form(call, scope, "answers")
        chosen: dict[str, Json] = {
            one.name: str(one.value) for one in form.fields if one.name in _CHOSEN_HERE
        }
        store = self.intake.preferences
        label = await store.answers(call.thread)
        abilities = await store.abilities() if store.offered else {}
        models: list[Json] = [
            {**asdict(one), "can": [*abilities.get(one.name, ())]} for one in store.offered
        ]
        own = await self.intake.own.read(PLATFORM, call.person)
        personas: list[Json] = [
            {"name": name, "text": text, "own": known is own.personas}
            for known in (self.intake.own.offered, own.personas)
            for name, text in known.items()
        ]
        more: dict[str, Json] = {"instructions": own.instructions, "personas": personas}
        return answer({**chosen, **more, "models": models, "answers": label})

    async def _choose(self, request: web.Request) -> web.Response:
        """Set preferences; an empty text clears one."""
        (call, scope), filled = await self._place(request), await body(request)
        if not filled.keys() <= _WRITTEN_HERE:
            raise Unacceptable(400, say("This cannot be chosen here."))
        if not all(isinstance(one, str) for one in filled.values()):
            raise Unacceptable(400, "A choice must be a text.")
        handlers, instructions = CommandHandlers(self.intake), filled.pop("instructions", None)
        if filled:
            await handlers.fill_in(call, scope, "answers", filled, seen="")
            await self.talks.keep(call.thread)
        if instructions is not None:
            save, keep_ms = self.intake.own.save_instructions, self._keep_ms
            await save(PLATFORM, call.person, instructions, keep_ms=keep_ms)
        if scope == "thread":
            await live.announce(self.store, call.thread)
        return await self._preferences(request)

    async def _save_persona(self, request: web.Request) -> web.Response:
        """Save a persona of the person's own by its name; an empty text deletes it."""
        sent = await body(request)
        name, text = sent.get("name"), sent.get("text")
        if not isinstance(name, str) or not isinstance(text, str):
            raise Unacceptable(400, say("A persona needs a name and a text."))
        await self.intake.own.save_persona(
            PLATFORM, request[PERSON], name, text, keep_ms=self._keep_ms
        )
        return answer({})

    @property
    def _keep_ms(self) -> int | None:
        """How long what a person saves stays: a guest's as long as the cookie, others' always."""
        return self.talks.keep_ms if self.about["login"] in ("", "password") else None

    async def _place(self, request: web.Request) -> tuple[Call, Scope]:
        """Return a conversation, or the place of all conversations, which is the person's own."""
        if "talk" in request.match_info:
            thread, _ = await self._known(request)
            call = replace(call_of(request), thread=thread, own_thread=True)
            return replace(call, scopes={"thread": say("this conversation")}), "thread"
        return replace(call_of(request), manages_channel=True), "channel"

    async def _delete(self, request: web.Request) -> web.Response:
        thread = thread_in(request)
        turn_ids = await self.talks.turns(thread)
        if not turn_ids and not await self.talks.find(thread):
            await self.shares.forget_deleted(thread)
            return answer({})
        if turn_ids:
            await self.intake.changes.forget_words(*turn_ids, asked_at=time.time())
        await self.intake.changes.reset(thread, by=request[PERSON].id)
        await self.intake.preferences.forget(thread)
        await live.forget(self.store, thread)
        await live.announce(self.store, thread, gone=True)
        await self.talks.forget(thread)
        await self.shares.forget_deleted(thread)
        return answer({})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        async with self.follower.page(thread_in(request)) as page:
            return await send_events(request, page, may_stay=request[MAY_STAY])

    async def _export(self, request: web.Request) -> web.Response:
        thread, talk = await self._known(request)
        turns = await self._standings(thread, *await self.talks.turns(thread))
        text = as_markdown(talk.title, turns)
        # Valid in all file systems and headers.
        name = re.sub(r"[^a-z0-9]+", "-", talk.title.lower()).strip("-")[:60].strip("-")
        headers = {"Content-Disposition": f'attachment; filename="{name or "conversation"}.md"'}
        return web.Response(text=text, content_type="text/markdown", headers=headers)

    async def _export_all(self, request: web.Request) -> web.StreamResponse:
        """Send all conversations of a person, one after the other, so that none is held."""
        person, form = request[PERSON], request.path.rpartition(".")[2]
        name = f'attachment; filename="conversations.{form}"'
        headers = {"Content-Disposition": name, "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        response.content_type, response.charset = _FORMS[form], "utf-8"
        begin, between, end = ("[\n", ",\n", "\n]\n") if form == "json" else ("", "\n---\n\n", "")
        talks = await self.talks.all_of(person)
        await response.prepare(request)
        await response.write(begin.encode())
        for number, talk in enumerate(talks):
            thread = thread_of(person, talk.id)
            turns = await self._standings(thread, *await self.talks.turns(thread))
            text = as_json(talk, turns) if form == "json" else as_markdown(talk.title, turns)
            await response.write(((between if number else "") + text).encode(errors="replace"))
        await response.write(end.encode())
        return response

    async def _save_file(self, request: web.Request) -> web.Response:
        """Store a file, which a later question names. People who may not ask send in vain."""
        asker = request[PERSON]
        upload = upload_in(request)
        turn = Turn(str(upload), upload, asker, "", {}, time.time(), asker=SIGNED_IN)
        await self.intake.check_room(turn)
        size = request.content_length or 0
        await self.uploads.save(upload, request.content.iter_any(), size=size)
        return answer({}, status=201)

    async def _drop_file(self, request: web.Request) -> web.Response:
        await self.uploads.drop(upload_in(request))
        return answer({})

    async def _ask(self, request: web.Request) -> web.Response:
        """Admit a question. The page retries with the same id until it is accepted."""
        asker, thread, sent = request[PERSON], thread_in(request), await body(request)
        name, text = sent.get("id"), sent.get("text")
        if not is_id(name) or not isinstance(text, str):
            raise Unacceptable(400, "A question needs an id and a text.")
        turn_id = turn_id_of(asker, str(name))
        files = files_in(sent, asker, turn_id, most=self.uploads.most_files)
        turn = Turn(turn_id, thread, asker, text, {}, time.time(), files=files, asker=SIGNED_IN)
        if model := sent.get("model"):
            turn = replace(turn, once=self.intake.preferences.model_named(str(model)))
        # The files of a question that is known already may have been read.
        if files and not await self._standings(thread, turn_id, aside=True):
            await self.intake.check_room(turn)
            await self.uploads.keep(files)
        async with self._recorded(turn, title=title_of(text)):
            # The same question with another time counts as another one.
            known = await self.intake.ask(turn)
            if not known and not await self._standings(thread, turn_id, aside=True):
                raise NotRemembered
        return answer({"turn": name}, status=202)

    async def _stop(self, request: web.Request) -> web.Response:
        turn = await self._turn(request)
        await self.intake.answers.stop(turn.turn_id, person_id=request[PERSON].id)
        return answer({}, status=202)

    async def _regenerate(self, request: web.Request) -> web.Response:
        """Answer again, beside what is there; the id in the body makes it idempotent."""
        turn, press = await self._turn(request), press_in(await body(request))
        if self.talks.remembers:
            return await self._branch(request, turn, press)
        await self.intake.answers.regenerate(
            turn.turn_id,
            person_id=request[PERSON].id,
            press_id=turn_id_of(request[PERSON], press),
            asker=SIGNED_IN,
        )
        await live.announce(self.store, thread_in(request), turn.turn_id)
        return answer({"turn": request.match_info["turn"]}, status=202)

    async def _branch(
        self, request: web.Request, turn: Standing, press: str, text: str = ""
    ) -> web.Response:
        """Admit another version of a turn, whose id is that of the press."""
        asker, thread = request[PERSON], thread_in(request)
        following = Turn(turn_id_of(asker, press), thread, asker, "", {}, time.time())
        async with self._recorded(following):
            is_new = await self.intake.answers.branch(
                turn.turn_id,
                person_id=asker.id,
                press_id=following.id,
                text=text,
                asker=SIGNED_IN,
            )
            if not is_new:
                await self.talks.remove(thread, following.id)
        return answer({"turn": press if is_new else request.match_info["turn"]}, status=202)

    async def _open(self, request: web.Request) -> web.Response:
        """Open another version of a turn, which the address names, with what followed it."""
        thread = thread_in(request)
        await self.intake.answers.open(turn_id_in(request), person_id=request[PERSON].id)
        await live.announce(self.store, thread)
        return answer({})

    async def _go_on(self, request: web.Request) -> web.Response:
        """Continue the last answer in a new turn with the id in the body."""
        asker, thread = request[PERSON], thread_in(request)
        turn, press = await self._turn(request), press_in(await body(request))
        following = Turn(turn_id_of(asker, press), thread, asker, "", {}, time.time())
        async with self._recorded(following):
            await self.intake.answers.continue_answer(
                turn.turn_id, person_id=asker.id, press_id=following.id, asker=SIGNED_IN
            )
        return answer({"turn": press}, status=202)

    async def _edit(self, request: web.Request) -> web.Response:
        asker, thread, sent = request[PERSON], thread_in(request), await body(request)
        text, press = sent.get("text"), press_in(sent)
        if not isinstance(text, str) or not text.strip():
            raise NothingAsked
        turn = await self._turn(request)
        edited = Turn(turn.turn_id, thread, asker, text, {}, turn.asked_at, asker=SIGNED_IN)
        is_open = turn.state in ("waiting", "running")
        if not is_open and bounded(edited).text == turn.question:
            return answer({"turn": request.match_info["turn"]}, status=202)
        if not is_open and self.talks.remembers:
            return await self._branch(request, turn, press, text)
        if not is_open and [turn.turn_id] != (await self.talks.turns(thread))[-1:]:
            raise NotTheLast
        await self.intake.ask(replace(edited, files=turn.files), edited_at=time.time())
        await live.announce(self.store, thread, turn.turn_id)
        return answer({"turn": request.match_info["turn"]}, status=202)

    async def _rate(self, request: web.Request) -> web.Response:
        """Store a rating; an empty one removes it."""
        turn, rating = await self._turn(request), (await body(request)).get("rating")
        if not isinstance(rating, str) or rating not in _RATINGS:
            raise Unacceptable(400, "A rating must be good, bad or empty.")
        await self.intake.answers.rate(
            turn.turn_id, person_id=request[PERSON].id, rating=_RATINGS[rating], asker=SIGNED_IN
        )
        await live.announce(self.store, thread_in(request), turn.turn_id)
        return answer({})

    async def _question(self, request: web.Request) -> web.Response:
        """Return the fields of what a tool's server asks, in the form of a turn."""
        turn, call = await self._turn(request), request.query.get("call", "")
        question = await self.intake.answers.question(
            turn.turn_id, call, person_id=request[PERSON].id, at=thread_in(request)
        )
        return answer({"fields": [asdict(one) for one in answer_form(question).fields]})

    async def _thoughts(self, request: web.Request) -> web.Response:
        """Return what the model has thought for the answer of a turn, so far."""
        turn = await self._turn(request)
        return answer({"text": await self.intake.lookup.thoughts(turn.turn_id)})

    async def _decide(self, request: web.Request) -> web.Response:
        """Say whether a call of a tool may be made; the first answer counts.

        Or answer its server: `filled` has what was written into the fields of a form.
        """
        thread, sent = thread_in(request), await body(request)
        call, consent, filled = sent.get("call"), sent.get("consent"), sent.get("filled")
        if not is_id(call) or not isinstance(consent, str) or consent not in PRESSES:
            raise Unacceptable(400, "A call can be allowed, always allowed, or denied.")
        turn, answers = await self._turn(request), self.intake.answers
        which: Any = {"person_id": request[PERSON].id, "at": thread}
        if consent == "answer":
            written = filled.items() if isinstance(filled, dict) else ()
            texts = {name: it for name, it in written if isinstance(it, str)}
            await answers.fill_in(turn.turn_id, str(call), texts, **which)
        else:
            await answers.decide(turn.turn_id, str(call), PRESSES[consent], **which)
        await live.announce(self.store, thread, turn.turn_id)
        return answer({}, status=202)

    async def _delete_turn(self, request: web.Request) -> web.Response:
        thread, turn_id = thread_in(request), turn_id_in(request)
        if turn_id not in await self.talks.turns(thread):
            await self.shares.forget_deleted(thread)
            return answer({})
        gone = await self.intake.changes.forget_words(turn_id, asked_at=time.time())
        await live.forget(self.store, thread)
        # The one that is asked for last, so that a call that comes again finds the others.
        await self.talks.remove(thread, *(one for one in gone if one != turn_id), turn_id)
        await live.announce(self.store, thread, turn_id)
        await self.shares.forget_deleted(thread)
        return answer({})

    async def _share(self, request: web.Request) -> web.Response:
        """Make a link to a conversation as it is; the id in the body makes it idempotent."""
        person, (thread, _), sent = request[PERSON], await self._known(request), await body(request)
        press, days, who = sent.get("id"), sent.get("days"), self.about["shares"]
        if who == "off":
            raise Unacceptable(403, say("Conversations cannot be shared here."))
        if not is_id(press) or days not in DAYS:
            raise Unacceptable(400, say("A link needs an id, and 1, 7 or 30 days."))
        talks = {it.id: it for it in await self.talks.all_of(person)}
        if (talk := talks.get(thread.thread)) is None:
            raise NotRemembered
        share = await self.shares.make(
            talk,
            await self._standings(thread, *await self.talks.turns(thread)),
            person=person,
            press_id=str(press),
            days=int(days),
            anyone=who == "anyone",
            # Without an account, all people have the same name.
            shows_name=self.about["login"] in ("oidc", "proxy"),
        )
        return answer(_listed(share, talk.title), status=201)

    async def _shares(self, request: web.Request) -> web.Response:
        person = request[PERSON]
        titles = {it.id: it.title for it in await self.talks.all_of(person)}
        links = await self.shares.all_of(person)
        return answer([_listed(it, titles.get(it.thread.thread, "")) for it in links])

    async def _revoke_share(self, request: web.Request) -> web.Response:
        await self.shares.revoke(request[PERSON], request.match_info["name"])
        return answer({})

    @asynccontextmanager
    async def _recorded(self, turn: Turn, *, title: str = "") -> AsyncIterator[None]:
        """Record a turn that the block admits, unless the block fails.

        One without a title stays recorded if nobody knows whether it was admitted.
        """
        known = turn.id in await self.talks.turns(turn.key)
        wants_title = await self.talks.add(turn, title=title)
        try:
            yield
        except BaseException as error:
            # A version may be there nevertheless, and what it replaces is aside then.
            if not known and (title or isinstance(error, Refused)):
                await self.talks.remove(turn.key, turn.id)
            raise
        if wants_title:
            await self.talks.put_off(turn.key, seconds=0.0)
        await live.announce(self.store, turn.key, turn.id)

    async def _standings(
        self, thread: ThreadKey, *turn_ids: str, aside: bool = False
    ) -> Sequence[Standing]:
        lookup = self.intake.lookup
        return await lookup.standings(*turn_ids, person_id=thread.channel, aside=aside)

    async def _turn(self, request: web.Request) -> Standing:
        """Return the state of the turn in the address. Raises NotRemembered."""
        # Its branch may have been left: by this request itself, which is sent again.
        found = await self._standings(thread_in(request), turn_id_in(request), aside=True)
        if not found:
            raise NotRemembered
        return found[0]

    async def _known(self, request: web.Request) -> tuple[ThreadKey, Talk]:
        thread = thread_in(request)
        if (talk := await self.talks.find(thread)) is None:
            raise Unacceptable(404, say("There is no such conversation."))
        return thread, talk


def _listed(share: Share, title: str) -> dict[str, Json]:
    """Return a link for its person's list; `title` is that of the conversation now."""
    return {
        "name": share.name,
        "token": share.token,
        "talk": share.thread.thread,
        "title": title,
        "made": share.made,
        "ends": share.ends,
    }
