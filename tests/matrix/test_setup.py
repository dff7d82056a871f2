"""What `check` and `init` say of a real homeserver, and the login that makes a token."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.matrix.setup import examine, invitation, log_in
from bot.app.check import line
from bot.app.init import Terminal, init, write
from bot.errors import CannotStart, Unreachable
from tests.app.test_init import loaded, run
from tests.emulators.model import ModelEmulator
from tests.support.settings import value_of
from tests.support.synapse import PASSWORD, SERVER, Member, Synapse


async def examined(
    bot: Member, *, servers: tuple[str, ...] = (), rooms: tuple[str, ...] = ()
) -> str:
    found = examine(bot.synapse.url, bot.token, servers=servers, rooms=rooms)
    return "\n".join([line(one) async for one in found])


async def test_a_bot_in_its_rooms_has_nothing_wrong(synapse: Synapse) -> None:
    ann, bot = await synapse.person("ann"), await synapse.person("parley")
    room = await ann.create_room(bot)
    await bot.join(room)

    said = await examined(bot, servers=(SERVER,), rooms=(room,))

    assert "✗" not in said
    assert f"✓ Matrix: The token is that of {bot.user_id}" in said
    assert "✓ Matrix: The bot is in 1 rooms" in said
    assert f"✓ Matrix: The bot is in {room}" in said
    # Only an admin of the server could tell whether it is lifted.
    assert "! Matrix: Synapse lets an account write once in 5 s" in said


async def test_where_the_bot_cannot_answer_is_told_with_the_cure(synapse: Synapse) -> None:
    ann, bot = await synapse.person("ann"), await synapse.person("parley")
    secret, other = await ann.create_room(bot, encrypted=True), await ann.create_room()
    await bot.join(secret)

    said = await examined(bot, servers=("example.org",), rooms=(secret, other))

    assert f"✗ Matrix: {SERVER} is not one of ALLOWED_SERVERS" in said
    assert f"✗ Matrix: {secret} of ALLOWED_CHANNELS is encrypted" in said
    assert f"✗ Matrix: The bot is not in {other} of ALLOWED_CHANNELS" in said
    assert f"invite {bot.user_id} there" in said


async def test_a_wrong_token_or_server_says_which_variable(synapse: Synapse) -> None:
    stranger = Member(synapse, "@x:y", "wrong")

    with pytest.raises(CannotStart, match="MATRIX_TOKEN"):
        await examined(stranger)
    with pytest.raises(Unreachable, match="MATRIX_HOMESERVER"):
        await invitation("http://127.0.0.1:1", "wrong")


async def test_people_are_told_whom_to_invite(synapse: Synapse) -> None:
    bot = await synapse.person("parley")

    said = await invitation(synapse.url, bot.token)

    assert bot.user_id in said
    assert "encryption" in said


async def test_each_login_is_on_the_same_device_so_that_answers_are_posted_once(
    synapse: Synapse,
) -> None:
    ann, bot = await synapse.person("ann"), await synapse.person("parley")
    room = await ann.create_room(bot)
    await bot.join(room)
    path, body = f"rooms/{room}/send/m.room.message/txn", {"msgtype": "m.text", "body": "hi"}

    tokens = [await log_in(synapse.url, user, PASSWORD) for user in (bot.user_id, bot.name)]
    logins = [Member(synapse, bot.user_id, token) for token in tokens]
    posted = {(await one.call("PUT", path, body))["event_id"] for one in logins}

    devices = (await logins[0].call("GET", "devices"))["devices"]
    assert len(posted) == 1
    assert [one["display_name"] for one in devices if one["device_id"] == "PARLEY"] == ["Parley"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("matrix.example.org", "matrix.example.org does not begin with https:// or http://"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1 cannot be asked: "),
    ],
)
async def test_a_login_elsewhere_names_the_address(address: str, said: str) -> None:
    with pytest.raises(CannotStart) as raised:
        await log_in(address, "parley", PASSWORD)

    assert str(raised.value).startswith(said)


async def test_init_asks_for_the_homeserver_and_the_token(
    synapse: Synapse, model: ModelEmulator, tmp_path: Path
) -> None:
    bot = await synapse.person("parley")
    write(tmp_path / ".env", {"DATA_DIR": str(tmp_path / "data")})
    answers: dict[str, str | list[str]] = {
        "MATRIX_HOMESERVER": synapse.url,
        "MATRIX_TOKEN": ["wrong", bot.token],
        "MODEL_URL": model.url,
        "ALLOWED_SERVERS": SERVER,
        "ADMINS": bot.user_id,
    }

    works, typist = await run(tmp_path, answers)

    assert works, typist.text
    settings = loaded(tmp_path / ".env")
    assert value_of(settings, "MATRIX_TOKEN") == bot.token
    assert settings.allowed_servers == (SERVER,)
    assert "MATRIX_TOKEN is refused" in typist.text
    assert f"Invite {bot.user_id} to a room" in typist.text
    assert bot.token not in typist.text


async def test_init_makes_a_token_of_a_user_and_a_password(
    synapse: Synapse, model: ModelEmulator, tmp_path: Path
) -> None:
    bot = await synapse.person("parley")
    write(tmp_path / ".env", {"DATA_DIR": str(tmp_path / "data")})
    name = bot.user_id[1:].partition(":")[0]
    answers: dict[str, str | list[str]] = {
        "MATRIX_HOMESERVER": synapse.url,
        "MATRIX_TOKEN": [f"{name} wrong", f"{name} {PASSWORD}"],
        "MODEL_URL": model.url,
        "ADMINS": bot.user_id,
    }

    works, typist = await run(tmp_path, answers)

    assert works, typist.text
    token = value_of(loaded(tmp_path / ".env"), "MATRIX_TOKEN")
    assert token not in ("", bot.token)
    assert "refuses the login" in typist.text
    assert f"The token is that of {bot.user_id}" in typist.text
    assert PASSWORD not in (tmp_path / ".env").read_text()


async def test_without_an_address_a_password_makes_none(tmp_path: Path) -> None:
    environment = {"MATRIX_TOKEN": f"parley {PASSWORD}"}

    with pytest.raises(CannotStart, match="does not begin with https://"):
        await init(Terminal(), env_file=tmp_path / ".env", environment=environment, asks=False)


async def test_a_wrong_password_makes_none(synapse: Synapse) -> None:
    bot = await synapse.person("parley")

    with pytest.raises(CannotStart, match=r"refuses the login: .*Invalid username or password"):
        await log_in(synapse.url, bot.user_id, "wrong")
