"""`python -m bot status`: what the process of this machine tells, as a person reads it."""

from __future__ import annotations

import io
from functools import partial

import pytest

from bot.app.metrics import refresh
from bot.app.status import show_status
from bot.errors import CannotStart
from bot.store import Store
from tests.app.test_metrics import served
from tests.emulators.model import ModelEmulator
from tests.support.at_work import make_queue, make_turn
from tests.support.ports import free_port
from tests.support.settings import settings_of
from tests.support.web_page import page_of


async def test_the_status_of_the_process_is_printed_once_into_a_pipe(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    metrics = partial(
        refresh, queue, ["console"], {"console": lambda: 0.0}, version="1.2.3", embedded_in=None
    )
    output = io.StringIO()
    async with served(store, metrics) as url:
        await show_status(settings_of(port=int(url.rpartition(":")[2])), output)

    first, waiting, _, head, *lines = output.getvalue().splitlines()
    assert first.startswith("Parley 1.2.3, Python 3.")
    assert waiting == "Waiting: 1"
    # Other tests of this process may have counted on other platforms.
    (console,) = [line for line in lines if line.startswith("console ")]
    columns = dict(zip(["name", *head.split()], console.split(), strict=False))
    assert (columns["hears"], columns["running"]) == ("yes", "0")
    assert any(line.startswith("Store: ") and "ms" in line for line in lines)


async def test_metrics_on_all_addresses_are_found(store: Store) -> None:
    port, output = free_port(), io.StringIO()
    metrics = partial(
        refresh, make_queue(store), ["console"], {}, version="1.2.3", embedded_in=None
    )
    everywhere = "0.0.0.0"
    async with served(store, metrics, host=everywhere, metrics_host=everywhere, metrics_port=port):
        await show_status(settings_of(metrics_host=everywhere, metrics_port=port), output)

    assert output.getvalue().startswith("Parley 1.2.3, ")


async def test_a_page_that_is_served_hears(own_store: Store, model: ModelEmulator) -> None:
    output = io.StringIO()
    async with page_of(own_store, model) as (_, service):
        await show_status(settings_of(port=int(service.address.rpartition(":")[2])), output)

    (page,) = [line.split() for line in output.getvalue().splitlines() if line.startswith("web ")]
    assert page[1] == "yes"


@pytest.mark.parametrize(("port", "cure"), [(1, "python -m bot run"), (0, "PORT=NUMBER before it")])
async def test_without_a_process_or_its_port_it_says_what_to_do(port: int, cure: str) -> None:
    with pytest.raises(CannotStart, match=cure):
        await show_status(settings_of(port=port), io.StringIO())
