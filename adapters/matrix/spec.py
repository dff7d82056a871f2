"""Matrix, as a process sees it: how its settings are asked for, checked and used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from adapters.matrix.settings import MatrixSettings
from bot.domain import Finding
from bot.platform_spec import Connected, PlatformSpec, Process, Question
from config.settings import Settings
from config.variables import IdForm

# With a dot, so that no id of another platform looks like it.
_SERVER = r"(?:(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z0-9-]{1,63}|localhost)(?::\d{1,5})?"


@asynccontextmanager
async def _connect(process: Process) -> AsyncIterator[Connected]:
    from adapters.matrix.client import connected
    from adapters.matrix.inbound import Inbound
    from adapters.matrix.platform import MatrixPlatform
    from adapters.matrix.sync import Lease, Sync

    own, settings = MatrixSettings.of(process.settings), process.settings
    async with connected(own.homeserver, own.token, budgets=process.budgets) as client:
        platform = MatrixPlatform(client)
        inbound = Inbound(platform, intake=process.intake, store=process.store)
        lease = Lease(process.store, account=client.user_id, seconds=settings.lease_seconds)
        sync = Sync(platform, inbound, lease)
        async with platform.jobs:
            yield Connected(platform, sync.run, platform.downtime.seconds, tell=platform.tell)


def _examine(settings: Settings) -> AsyncIterator[Finding]:
    from adapters.matrix.setup import examine

    own = MatrixSettings.of(settings)
    return examine(
        own.homeserver,
        own.token,
        servers=PLATFORM.own_ids(settings.allowed_servers),
        rooms=PLATFORM.own_ids(settings.allowed_channels),
    )


async def _welcome(settings: Settings) -> AsyncIterator[Finding]:
    from adapters.matrix.setup import invitation

    own = MatrixSettings.of(settings)
    yield Finding("Matrix", await invitation(own.homeserver, own.token))


async def _token_of(answer: str, values: Mapping[str, str]) -> str:
    """Return a token as it is; of a user and a password, with a blank between, one is made."""
    from adapters.matrix.setup import log_in

    user, _, password = answer.partition(" ")
    address = values.get("MATRIX_HOMESERVER", "")
    return await log_in(address, user, password) if password else answer


PLATFORM = PlatformSpec(
    title="Matrix",
    where="Matrix",
    settings=MatrixSettings,
    connect=_connect,
    ids={
        "server": IdForm(_SERVER, "matrix.example.org", "homeserver"),
        "channel": IdForm(r"![!-+\--~]{1,254}", "!OGEhHVWSdvArJzumhm:example.org", "room"),
        "person": IdForm(rf"@[!-+\--9;-~]{{1,250}}:{_SERVER}", "@ann:example.org"),
    },
    ids_help="Matrix's begin with ! (a room) or @ (a person); a homeserver has its name",
    sessions=("matrix:*:since", "matrix:*:holder"),
    removes_answers=True,
    credential="MATRIX_TOKEN",
    examine=_examine,
    welcome=_welcome,
    questions=(
        Question(
            "MATRIX_HOMESERVER",
            "Matrix: the address of the bot's homeserver",
            before="For Matrix, make an account for the bot at a homeserver, such as "
            "https://matrix.example.org.",
        ),
        Question(
            "MATRIX_TOKEN",
            "Matrix: the account's user and password, with a blank between, or an access token",
            secret=True,
            before="Of a user and a password a token is made; the password is not kept.",
            needs=("MATRIX_HOMESERVER",),
            check=_examine,
            value_of=_token_of,
        ),
    ),
    tokens=(("token", "homeserver"),),
)
