"""Lines for auditors: each has ids, none has words, and nothing keeps them from their file."""

from __future__ import annotations

import json
import logging
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from bot import audit
from bot.access.quotas import Quota
from bot.access.rules import AccessRules
from bot.commands.handlers import Call, CommandHandlers, MayNotChange
from bot.domain import Person, ThreadKey
from bot.intake.addressed import Facts
from bot.store import Store
from bot.turns.allowed import AllowedTools
from bot.turns.forgetting import named
from tests.intake.test_consent import asked, make_answers
from tests.intake.test_receive import ANN, KEY, intake_of, said
from tests.support.at_work import KEY as TALK
from tests.support.at_work import answer, make_queue, make_turn
from tests.support.fakes import FakeModel, FakePlatform
from tests.support.process import python

OTHER = ThreadKey("discord", "server", "channel", "other")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines, of a process that has not refused anybody yet."""
    monkeypatch.setattr(audit, "_recent", type(audit._recent)())
    caplog.set_level(logging.INFO, "parley.audit")
    return caplog.messages


def test_no_value_forges_another_one_or_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "parley.audit")

    audit.note("allowed", tool='x by="operator"\n\x9b\u202e', by="u1")

    (line,) = caplog.messages
    assert line.isprintable()
    assert line.isascii()
    assert re.findall(r"(\w+)=(?=(?:[^\"]|\"(?:[^\"\\]|\\.)*\")*$)", line)[-1] == "by"
    assert json.loads(line.removeprefix("allowed tool=").removesuffix(" by=u1"))


async def test_a_person_who_is_refused_a_thousand_times_has_one_line_for_each_rule(
    store: Store, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    rules = AccessRules(people=frozenset({"somebody"}), blocked=frozenset({"u2"}))
    intake = intake_of(store, rules)
    blocked = replace(said("zebra").turn, person=Person("u2", "Bob"), key=OTHER)
    for number in range(100):
        await intake.receive(said("zebra", number=number))
        await intake.receive(replace(said("zebra"), turn=blocked))
        # Who talks beside the bot asks for nothing.
        await intake.receive(replace(said("zebra", Facts()), ours=True))

    assert caplog.messages == [
        f"refused rule=ALLOWED_PEOPLE thread={KEY} person=ann",
        f"refused rule=BLOCKED_PEOPLE thread={OTHER} person=u2",
    ]


async def test_who_has_used_up_a_quota_or_may_not_choose_has_a_line(
    store: Store, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    intake = intake_of(store, AccessRules(quota=Quota(questions=1)))
    call = Call(id="1", thread=KEY, person=ANN, scopes={"channel": "here", "server": "it"})
    await intake.receive(said("zebra"))
    await intake.receive(said("zebra", number=2))
    with pytest.raises(MayNotChange):
        await CommandHandlers(intake).run("persona", call, "yodel", "server")

    assert caplog.messages == [
        f"refused rule=quota:questions thread={KEY} person=ann",
        f"refused rule=settings:server thread={KEY} person=ann",
    ]


async def test_what_is_reset_and_forgotten_has_lines_with_the_person_who_wants_it(
    store: Store, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    queue, intake = make_queue(store), intake_of(store)
    call = Call(id="1", thread=TALK, person=ANN, scopes={"thread": "here"}, own_thread=True)
    await answer(store, FakePlatform(), FakeModel(), make_turn(1))
    await intake.receive(said("zebra"))
    for number in range(3):
        # The others find nothing to forget.
        await CommandHandlers(intake).run("reset", replace(call, id=str(number)))
    await queue.forgetting.begin(named("server", "discord", "81"), by=audit.OPERATOR)
    await intake.forget_person("discord", ANN)
    # A second request is the same job.
    await intake.forget_person("discord", ANN)
    await queue.forgetting.carry_out(named("person", "discord", "ann"))

    *first, last = caplog.messages
    assert first == [
        f"reset thread={TALK} by=ann",
        "forget kind=server platform=discord id=81 by=operator",
        "forget kind=person platform=discord id=ann by=ann",
    ]
    assert re.fullmatch("forgotten kind=person platform=discord id=ann removed=[1-9][0-9]*", last)
    assert "zebra" not in caplog.text


async def test_what_is_allowed_for_always_revoked_and_rated_no_has_a_line(
    store: Store, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    answers, call_id = make_answers(store), await asked(store)
    await answers.decide("console:1", call_id, "always", person_id="u1", at=TALK)
    revoking, ann = AllowedTools(store), Person("u1", "Ann")
    (tool,) = await revoking.names("console", ann)
    for _ in range(2):
        await revoking.revoke("console", ann, tool)
    await answer(store, FakePlatform(), FakeModel(), make_turn(2, thread="t2"))
    for _ in range(3):
        await answers.rate("console:2", person_id="u1", rating="bad")
        await answers.rate("console:2", person_id="u1", rating="good")

    assert [one for one in caplog.messages if not one.startswith("call ")] == [
        f"allowed call={call_id} turn=console:1 person=u1",
        f"revoked tool={tool} platform=console person=u1",
        "rated rating=no turn=console:2 person=u1",
    ]


_ROTATED = """
import logging, os, pathlib
from bot import audit
from bot.app.logging import configure_logging
from config.settings import Settings
file = pathlib.Path("audit")
configure_logging(Settings(audit_file=file, log_level="warning", log_format="json"))
audit.note("one", by="u1")
file.rename("audit.1")
audit.note("two", by="u1")
file.rename("audit.2")
pathlib.Path("audit").mkdir()
audit.note("lost", by="u1")
audit.note("lost", by="u1")
file.rmdir()
audit.note("three", by="u1")
logging.getLogger("bot").info("quiet")
"""


async def test_the_file_survives_a_rename_and_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    async with python("-c", _ROTATED, folder=tmp_path, variables={}) as process:
        _, log = await process.communicate()

    assert process.returncode == 0, log.decode()
    files = [(tmp_path / name).read_text() for name in ("audit.1", "audit.2", "audit")]
    found = [[json.loads(line) for line in text.splitlines()] for text in files]
    assert {stat.filemode((tmp_path / name).stat().st_mode) for name in ("audit.1", "audit")} == {
        "-rw-r-----"
    }
    assert [[(it["event"], it["by"]) for it in one] for one in found] == [
        [("one", "u1")],
        [("two", "u1")],
        [("three", "u1")],
    ]
    # What is lost is said once, and the log has no line below its level.
    (said_of_it,) = [json.loads(line) for line in log.decode().splitlines()]
    assert said_of_it["level"] == "error"
    assert "AUDIT_FILE" in said_of_it["message"]


_FULL = """
import pathlib
from bot import audit
from bot.app.logging import configure_logging
from config.settings import Settings
configure_logging(Settings(audit_file=pathlib.Path("/dev/full")))
for _ in range(10_000):
    audit.note("lost", by="u1")
print("goes on")
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
async def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    async with python("-c", _FULL, folder=tmp_path, variables={}) as process:
        out, log = await process.communicate()

    assert out == b"goes on\n"
    assert log.count(b"AUDIT_FILE") == 1
    assert b"Traceback" not in log
    # The log has them, too.
    assert log.count(b"lost by=u1") == 10_000


async def test_the_start_refuses_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    variables = {"AUDIT_FILE": "nowhere/audit", "REDIS_URL": "redis://127.0.0.1:1"}
    async with python("-m", "bot", "run", "worker", folder=tmp_path, variables=variables) as bot:
        _, log = await bot.communicate()

    assert bot.returncode == 1
    assert log == b"bot: AUDIT_FILE='nowhere/audit' cannot be opened: No such file or directory\n"


async def test_what_an_operator_does_is_in_the_file(own_store: Store, tmp_path: Path) -> None:
    place = {"platform": "discord", "workspace": "81", "chosen": {"persona": "yodel"}}
    file = {"format": "parley-preferences", "version": 1, "places": [place]}
    (tmp_path / "places").write_text(json.dumps(file))
    variables = {"AUDIT_FILE": "audit", "REDIS_URL": own_store.url, "LOG_LEVEL": "error"}
    for words in ("import", "places"), ("export",), ("forget", "123456789012345678"):
        async with python("-m", "bot", *words, folder=tmp_path, variables=variables) as bot:
            await bot.communicate()

    text = (tmp_path / "audit").read_text()
    written = [line.partition("parley.audit: ")[2] for line in text.splitlines()]
    who = "platform=discord id=123456789012345678"
    assert written[0].startswith(
        "changed place=discord:81:: by=operator field=persona before= after=5:"
    )
    assert written[1:] == [
        "imported places=1 by=operator",
        "exported places=1 by=operator",
        f"forget kind=person {who} by=operator",
        f"forget kind=server {who} by=operator",
        f"forgotten kind=person {who} removed=0",
        f"forgotten kind=server {who} removed=0",
    ]
    assert "yodel" not in text
