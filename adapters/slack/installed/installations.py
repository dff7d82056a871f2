"""The installations of the app, with their tokens, encrypted in the store."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bot.errors import CannotStart, ParleyError, TooFewReplicas
from bot.store import Store

_STATE = b"state:"
LOCK_SECONDS = 30.0  # longer than a refresh may take

# Replaces an installation if it is still the one that was read, or removes it if the new one is
# empty; and returns whether it is so now. A lock of the caller is released. Idempotent.
#
# KEYS: the installations, the lock. ARGV: the id, the old value, the new one, and the lock's owner.
_REPLACE = """
local found = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if found == ARGV[2] then
  if ARGV[3] == '' then
    redis.call('HDEL', KEYS[1], ARGV[1])
  else
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  end
end
if redis.call('GET', KEYS[2]) == ARGV[4] then redis.call('DEL', KEYS[2]) end
return (found == ARGV[2] or found == ARGV[3]) and 1 or 0
"""


class Undecipherable(ParleyError):
    """What the store has of an installation was not encrypted with one of our keys, or for it."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The bot token of one workspace, or of one organization; `id` is the id of either.

    Times are in seconds since the epoch. A token without a refresh token is good for ever.
    `sealed` is what the store has of it.
    """

    id: str
    name: str
    token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    refresh_at: float = 0.0
    expires_at: float = 0.0
    sealed: str = field(default="", repr=False, compare=False)

    @classmethod
    def of(cls, answer: Mapping[str, Any], *, asked_at: float) -> Installation:
        """Read the answer to an installation (docs: oauth.v2.access)."""
        is_org_wide = answer.get("is_enterprise_install") is True
        where = answer.get("enterprise" if is_org_wide else "team") or {}
        found = cls(str(where["id"]), str(where.get("name") or ""), "")
        return found.with_token(answer, asked_at=asked_at)

    def with_token(self, answer: Mapping[str, Any], *, asked_at: float) -> Installation:
        """Return this with the token of an answer (docs: oauth.v2.access, Using token rotation).

        Its life may have begun when it was `asked_at`.
        """
        refresh, life = str(answer.get("refresh_token") or ""), answer.get("expires_in")
        token = str(answer["access_token"])
        # With a life but nothing to refresh it by, it is used until Slack refuses it.
        if not refresh or not isinstance(life, int | float):
            return replace(self, token=token, refresh_token="", refresh_at=0.0, expires_at=0.0)
        due_at, end_at = asked_at + life / 2, asked_at + life
        return replace(
            self, token=token, refresh_token=refresh, refresh_at=due_at, expires_at=end_at
        )

    @property
    def is_due(self) -> bool:
        """Whether half of the token's life is over."""
        return bool(self.refresh_token) and time.time() >= self.refresh_at

    @property
    def has_expired(self) -> bool:
        """Whether Slack refuses the token by now."""
        return bool(self.refresh_token) and time.time() >= self.expires_at


class Installations:
    """All of them. Each method raises StoreUnavailable.

    They are encrypted with the first of the `keys` and decrypted with any; raises CannotStart
    without the package for that.
    """

    def __init__(self, store: Store, keys: Sequence[str]) -> None:
        try:
            from cryptography.fernet import Fernet, InvalidToken, MultiFernet
        except ModuleNotFoundError as error:
            install = "python -m pip install --require-hashes -r requirements-workspaces.lock"
            raise CannotStart(f"SLACK_CLIENT_ID needs cryptography: {install}") from error
        self._store = store
        self._cipher = MultiFernet([Fernet(key) for key in keys])
        self._newest = Fernet(keys[0])
        self._invalid = InvalidToken
        self._key = store.key("slack_installations")
        # Bytes that must not be lost, also in a full store.
        self._replace = store.script(_REPLACE, if_full=True)

    async def ids(self) -> list[str]:
        """Return the ids of all workspaces and organizations that have installed the app."""
        return sorted(await self._store.command("HKEYS", self._key))

    async def read(self, id_: str) -> Installation | None:
        """Return as `peek` does; what is encrypted with an older key gets the newest."""
        found = await self.peek(id_)
        if found and not self._is_newest(found.sealed) and await self.replace(found, found):
            return await self.peek(id_)
        return found

    async def peek(self, id_: str) -> Installation | None:
        """Return an installation, or None if there is none. Raises Undecipherable."""
        sealed = await self._store.command("HGET", self._key, id_)
        if sealed is None:
            return None
        try:
            fields = json.loads(self._cipher.decrypt(sealed))
        except (self._invalid, ValueError) as error:
            raise Undecipherable(
                f"the installation in {id_} is encrypted with none of the keys of SLACK_STORE_KEY"
            ) from error
        # Whoever can write to the store cannot give a workspace the token of another one.
        if fields.get("id") != id_:
            raise Undecipherable(f"the installation in {id_} is that of another workspace")
        return Installation(**fields, sealed=sealed)

    async def examine(self) -> str:
        """Return why no installation can be read; empty if there is none, or one can."""
        problems = []
        for id_ in await self.ids():
            try:
                await self.read(id_)
            except Undecipherable as error:
                problems.append(str(error))
            else:
                return ""
        return problems[0] if problems else ""

    async def add(self, installation: Installation) -> None:
        """Store an installation, in place of an earlier one."""
        await self._store.command("HSET", self._key, installation.id, self._seal(installation))
        await self._replicated()

    async def replace(
        self, old: Installation, new: Installation | None, *, lock: str = ""
    ) -> Installation | None:
        """Replace or remove an installation, and release a lock.

        Return the new one, or None if the old one is no longer what the store has.
        """
        sealed = self._seal(new) if new else ""
        keys, args = [self._key, self._lock(old.id)], [old.id, old.sealed, sealed, lock]
        if not await self._replace(keys=keys, args=args):
            return None
        await self._replicated()
        return replace(new, sealed=sealed) if new else old

    async def remove(self, id_: str) -> None:
        """Remove an installation, whatever the store has of it."""
        await self._store.command("HDEL", self._key, id_)

    async def lock(self, id_: str, owner: str) -> bool:
        """Take the lock of an installation for `LOCK_SECONDS`; False if another process has it."""
        take = "SET", self._lock(id_), owner, "NX", "PX", int(LOCK_SECONDS * 1000)
        # A command may be sent twice.
        return bool(
            await self._store.command(*take)
            or await self._store.command("GET", self._lock(id_)) == owner
        )

    async def unlock(self, id_: str, owner: str) -> None:
        """Release the lock, if the owner still has it."""
        nothing = "-", "-"  # no value in the store is that
        await self._replace(keys=[self._key, self._lock(id_)], args=[id_, *nothing, owner])

    def issue_state(self) -> str:
        """Return a state for one installation, which `use_state` takes once."""
        return self._newest.encrypt(_STATE + secrets.token_hex(16).encode()).decode()

    async def use_state(self, state: str, *, seconds: int) -> bool:
        """Whether a state was issued by us, in the last `seconds`, and not used before."""
        try:
            decrypted = self._cipher.decrypt(state, ttl=seconds)
        except (self._invalid, ValueError):
            return False
        if not decrypted.startswith(_STATE):
            return False
        # Nothing is stored for strangers who begin an installation and do not end it.
        used = self._store.key("slack_state", decrypted.removeprefix(_STATE).decode())
        return bool(await self._store.command("SET", used, "1", "NX", "EX", 2 * seconds))

    async def _replicated(self) -> None:
        """Let the replicas have it, too: a refresh token that was lost could not be had again.

        Without replicas answers go on with what the primary has.
        """
        with suppress(TooFewReplicas):
            await self._store.replicate()

    def _seal(self, installation: Installation) -> str:
        fields = {name: value for name, value in asdict(installation).items() if name != "sealed"}
        return self._newest.encrypt(json.dumps(fields).encode()).decode()

    def _is_newest(self, sealed: str) -> bool:
        try:
            self._newest.decrypt(sealed)
        except self._invalid:
            return False
        return True

    def _lock(self, id_: str) -> str:
        return self._store.key("slack_refreshing", id_)
