"""A screen that is opened while a call waits to be allowed learns what is asked."""

from __future__ import annotations

from bot.domain import Shown, Standing
from bot.store import Store
from tests.support.at_work import make_queue, make_turn, take

CALL, MAY_I = "Call00001", "May I call `x y` on `z`?"


async def standing(store: Store) -> Standing:
    (found,) = await make_queue(store).lookup.standings("console:1", person_id="u1")
    return found


def asked(one: Standing) -> tuple[str, str, str, str]:
    return one.state, one.answer, one.consent, one.sign


async def test_the_record_tells_a_question_before_it_is_shown_and_until_it_is_answered(
    store: Store,
) -> None:
    queue = make_queue(store, lease=60.0)
    await queue.admit(make_turn())
    taken = await take(queue)
    await queue.leases.save(taken, Shown(("m1",), "Hm.", "Hm."))
    seen = []
    step = f"asked:{CALL}", f"1.0 digest tracker/x\n{MAY_I}"
    await queue.leases.save_step(taken, *step, effect="", counts=False)
    seen.append(asked(await standing(store)))
    await queue.leases.suspend(taken, CALL, seconds=60.0)
    seen.append(asked(await standing(store)))
    # The worker died, or the time is over: the next one asks again.
    await store.command("ZADD", store.key("due", "console"), 0, str(make_turn().key))
    again = await take(queue)
    seen.append(asked(await standing(store)))
    await queue.leases.suspend(again, CALL, seconds=60.0)
    seen.append(asked(await standing(store)))
    await queue.changes.decide("console:1", CALL, "allow", person_id="u1", is_admin=False)
    seen.append(asked(await standing(store)))

    asks = ("running", "Hm.", CALL, MAY_I)
    assert seen == [asks, asks, ("running", "Hm.", "", ""), asks, ("running", "Hm.", "", "")]
