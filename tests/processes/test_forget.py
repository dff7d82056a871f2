"""`python -m bot forget`, as a process."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bot.commands.handlers import FORGET_QUESTION, FORGETTING, FORGOTTEN
from bot.domain import ContextMessage, Person, Shown, ThreadKey, Turn
from bot.store import Store
from bot.turns.forgetting import named
from tests.emulators.model import ModelEmulator
from tests.support.at_work import make_queue
from tests.support.process import model_variables, python
from tests.support.service import serving
from tests.support.stored import stored
from tests.support.web_page import web_variables
from tests.turns.test_forgetting import next_of

ANN = Person("123456789012345678", "Ann")
MANY = 10_000  # keys, through which a process looks for a while


async def test_a_worker_goes_on_after_a_kill(
    own_store: Store, model: ModelEmulator, data_dir: Path
) -> None:
    queue, key = make_queue(own_store), ThreadKey("discord", "g1", "c1", "t1")
    said = ContextMessage("discord:9", ANN, "zebra")
    for number, person in enumerate((ANN, Person("2", "Bob"))):
        await queue.admit(Turn(f"discord:{number}", key, person, "yodel", {}, 1000.0))
        taken = await next_of(queue)
        await queue.leases.save_context(taken, None, [said])
        await queue.leases.finish(taken, Shown(("m1",), "w", "w", outcome="failed"), None)
    others = [own_store.key("message", f"discord:{number}") for number in range(MANY)]
    await own_store.redis.mset(dict.fromkeys(others, "{}"))
    jobs = own_store.key("forgetting")

    variables = {"REDIS_URL": own_store.url}
    async with python("-m", "bot", "forget", ANN.id, folder=data_dir, variables=variables) as bot:
        while not await own_store.command("ZCARD", jobs):
            assert bot.returncode is None
            await asyncio.sleep(0.001)
        bot.kill()
        await bot.wait()
    assert await own_store.command("ZCARD", jobs)

    # Nobody goes on before the killed one is known to be dead.
    for kind in ("person", "server"):
        await own_store.command("ZADD", jobs, "XX", 0, named(kind, "discord", ANN.id))
    async with serving(own_store, "web", "worker", variables=web_variables(model)) as service:
        while await own_store.command("ZCARD", jobs):
            assert not service.task.done()
            await asyncio.sleep(0.01)
    await own_store.redis.unlink(*others)
    left = await stored(own_store)
    assert [one for one in left if any(word in one for word in (ANN.id, "zebra"))] == []
    assert [one for one in left if "yodel" in one and "Bob" in one] != []


async def test_a_terminal_forgets_its_person(
    own_store: Store, model: ModelEmulator, data_dir: Path
) -> None:
    model.answer = "walrus"
    lines = "zebra\n/forget-me\n/forget-me yes\n"
    variables = model_variables(model) | {"REDIS_URL": own_store.url, "LOGNAME": "zoë ann"}
    variables["PORT"] = "0"
    arguments = ("-m", "bot", "run", "console", "worker")
    async with python(*arguments, folder=data_dir, variables=variables) as bot:
        out, _ = await bot.communicate(lines.encode())

    # On a busy machine it takes longer than a moment.
    said = out.decode().replace(f"{FORGETTING}\n", "")
    assert said == f"walrus\n{FORGET_QUESTION}\nIf so, write: /forget-me yes\n{FORGOTTEN}\n"
    words = ("zebra", "walrus", "zoë", "zo%C3%AB")
    assert [one for one in await stored(own_store) if any(word in one for word in words)] == []


async def test_a_store_that_is_away_is_reported_in_a_line(data_dir: Path) -> None:
    variables = {"REDIS_URL": "redis://127.0.0.1:1"}
    async with python("-m", "bot", "forget", ANN.id, folder=data_dir, variables=variables) as bot:
        out, said = await bot.communicate()

    assert (bot.returncode, out) == (1, b"")
    assert said.startswith(b"bot: ")
    assert said.count(b"\n") == 1
    assert b"REDIS_URL" in said
