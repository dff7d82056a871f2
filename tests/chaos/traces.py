"""What a run leaves for whoever wants to know how something came about."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from typing import Any

from tests.chaos.faults import World
from tests.chaos.talks import Talk


async def keep(world: World, talks: Iterable[Talk], folder: Path) -> None:
    """Write what each process logged, each call to a platform, each turn's record and each kill.

    Also what was said in each talk and what it shows, and how sessions of Discord went on. Times
    are monotonic seconds, but for the logs'.
    """
    redis = world.server.redis
    names = sorted(await redis.keys("*turn:*"))
    turns = [{"key": name, **await redis.hgetall(name)} for name in names]
    calls = [asdict(call) for call in world.discord.requests]
    calls += [asdict(call) for call in world.slack.requests]
    texts = {f"{number:04}.log": text for number, text in enumerate(world.fleet.texts)}
    texts |= {
        "calls.jsonl": _lines(sorted(calls, key=itemgetter("at"))),
        "turns.jsonl": _lines(turns),
        "talks.jsonl": _lines(map(_talk, talks)),
        "sessions.jsonl": _lines(map(asdict, world.discord.handshakes)),
        "kills": "\n".join(map(str, world.kills)),
    }
    _write(folder, texts)


def _talk(talk: Talk) -> dict[str, Any]:
    numbers = (*talk.asked, *talk.former, *talk.gone)
    messages = {number: talk.message_of(number) for number in sorted(numbers)}
    return {
        "name": talk.name,
        "asked": talk.asked,
        "former": talk.former,
        "gone": talk.gone,
        "changed": talk.changed,
        "remarks": talk.remarks,
        "messages": messages,
        "shown": talk.shown(),
    }


def _lines(values: Iterable[dict[Any, Any]]) -> str:
    return "".join(json.dumps(value, ensure_ascii=False, default=str) + "\n" for value in values)


def _write(folder: Path, texts: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
