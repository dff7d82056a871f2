"""A real homeserver, Synapse, with people who write in its rooms.

Their limits are lifted, but for those who are `limited`: these have Synapse's own, of ten messages
at once and one each five seconds.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import sys
from asyncio.subprocess import STDOUT
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import pytest

from tests.support.ports import free_port

SERVER = "synapse.test"
PASSWORD = "correct horse"
_SECRET = "of the tests alone"
_CLIENT = "/_matrix/client/v3"
_numbers = count(1)
Content = Mapping[str, Any]


def python_of_synapse() -> Path:
    """Return the Python that has Synapse; skips the test if there is none."""
    named = os.environ.get("SYNAPSE_PYTHON")
    found = Path(named) if named else Path(sys.prefix) / "synapse" / "bin" / "python"
    if not found.exists():
        pytest.skip("Synapse is not installed: make synapse")
    return found


@dataclass(frozen=True, slots=True)
class Shown:
    """A message as a client shows it: with its last edit, and gone if it was redacted."""

    id: str
    sender: str
    text: str
    html: str
    thread: str  # the event id of its root; "" outside of threads
    content: Content  # of the last edit
    edits: int
    kind: str


class RefusedBySynapse(Exception):
    """A request of a test got an error, such as `{"errcode": "M_FORBIDDEN"}` with a 403."""

    def __init__(self, status: int, body: Content) -> None:
        super().__init__(f"{status}: {body}")
        self.status, self.body = status, body


@dataclass(slots=True)
class Member:
    """An account on the server."""

    synapse: Synapse
    user_id: str
    token: str

    @property
    def name(self) -> str:
        return self.user_id[1:].partition(":")[0]

    async def call(self, method: str, path: str, body: object = None, **query: str | int) -> Any:
        """Send a request; a path without `/_` is one of the client-server API."""
        path = path if path.startswith("/_") else f"{_CLIENT}/{path}"
        return await self.synapse.call(method, path, body, token=self.token, query=query)

    async def create_room(
        self,
        *invited: Member | str,
        name: str = "",
        direct: bool = False,
        encrypted: bool = False,
        **more: Any,
    ) -> str:
        """Make a room and return its id; those invited are not in it yet."""
        body = {
            "preset": "trusted_private_chat" if direct else "private_chat",
            "is_direct": direct,
            "invite": [one if isinstance(one, str) else one.user_id for one in invited],
            **({"name": name} if name else {}),
            **more,
        }
        if encrypted:
            algorithm = {"algorithm": "m.megolm.v1.aes-sha2"}
            body["initial_state"] = [{"type": "m.room.encryption", "content": algorithm}]
        return str((await self.call("POST", "createRoom", body))["room_id"])

    async def join(self, room: str) -> None:
        await self.call("POST", f"join/{quote(room)}", {})

    async def leave(self, room: str) -> None:
        await self.call("POST", f"rooms/{quote(room)}/leave", {})

    async def invite(self, room: str, other: Member) -> None:
        await self.call("POST", f"rooms/{quote(room)}/invite", {"user_id": other.user_id})

    async def bring(self, room: str, name: str) -> Member:
        """Invite a new person, who joins."""
        other = await self.synapse.person(name)
        await self.invite(room, other)
        await other.join(room)
        return other

    async def send(self, room: str, content: Content, *, kind: str = "m.room.message") -> str:
        """Send any event and return its id."""
        path = f"rooms/{quote(room)}/send/{quote(kind)}/{uuid4().hex}"
        return str((await self.call("PUT", path, dict(content)))["event_id"])

    async def say(
        self,
        room: str,
        text: str,
        *,
        to: Sequence[Member] = (),
        thread: str = "",
        reply_to: str = "",
        edit_of: str = "",
        **more: Any,
    ) -> str:
        """Write a message as Element does; `to` are those that it mentions."""
        content: dict[str, Any] = {"msgtype": "m.text", "body": text, **more}
        content["m.mentions"] = {"user_ids": [one.user_id for one in to]} if to else {}
        relation: dict[str, Any] = {}
        if thread:
            relation = {"rel_type": "m.thread", "event_id": thread}
            relation |= {"is_falling_back": not reply_to}
        if thread or reply_to:
            relation["m.in_reply_to"] = {"event_id": reply_to or thread}
        if edit_of:
            relation = {"rel_type": "m.replace", "event_id": edit_of}
            content = {**content, "body": f"* {text}", "m.new_content": dict(content)}
        if relation:
            content["m.relates_to"] = relation
        return await self.send(room, content)

    async def react(self, room: str, event: str, key: str) -> str:
        relation = {"rel_type": "m.annotation", "event_id": event, "key": key}
        return await self.send(room, {"m.relates_to": relation}, kind="m.reaction")

    async def redact(self, room: str, event: str) -> None:
        path = f"rooms/{quote(room)}/redact/{quote(event)}/{uuid4().hex}"
        await self.call("PUT", path, {})

    async def upload(self, name: str, data: bytes, media_type: str) -> str:
        """Store a file and return its address."""
        path, query = "/_matrix/media/v3/upload", {"filename": name}
        found = await self.synapse.call(
            "POST", path, data, token=self.token, query=query, media_type=media_type
        )
        return str(found["content_uri"])

    async def events(self, room: str) -> list[dict[str, Any]]:
        """Return all events of a room that this person sees, oldest first."""
        found: list[dict[str, Any]] = []
        query: dict[str, str | int] = {"dir": "b", "limit": 500}
        while True:
            page = await self.call("GET", f"rooms/{quote(room)}/messages", **query)
            found += page["chunk"]
            if not page.get("end") or not page["chunk"]:
                return found[::-1]
            query["from"] = page["end"]

    async def screen(self, room: str) -> list[Shown]:
        """Return the messages of a room as a client shows them, oldest first."""
        events = await self.events(room)
        edits: dict[str, list[dict[str, Any]]] = {}
        for one in events:
            relation = one["content"].get("m.relates_to", {})
            if relation.get("rel_type") == "m.replace" and "m.new_content" in one["content"]:
                edits.setdefault(relation["event_id"], []).append(one)
        shown = []
        for one in events:
            relation = one["content"].get("m.relates_to", {})
            if one["type"] != "m.room.message" or "body" not in one["content"]:
                continue
            if relation.get("rel_type") == "m.replace":
                continue
            own = [it for it in edits.get(one["event_id"], ()) if it["sender"] == one["sender"]]
            content = own[-1]["content"]["m.new_content"] if own else one["content"]
            thread = relation["event_id"] if relation.get("rel_type") == "m.thread" else ""
            shown.append(
                Shown(
                    id=one["event_id"],
                    sender=one["sender"],
                    text=content.get("body", ""),
                    html=content.get("formatted_body", ""),
                    thread=thread,
                    content=content,
                    edits=len(own),
                    kind=content.get("msgtype", ""),
                )
            )
        return shown

    async def sees(
        self,
        room: str,
        wanted: Callable[[list[Shown]], object],
        *,
        of: Member | None = None,
        seconds: float = 60.0,
    ) -> list[Shown]:
        """Return the messages, of one person if named, as soon as they are what is wanted."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await self.screen(room)
                    found = [one for one in found if of is None or one.sender == of.user_id]
                    if wanted(found):
                        return found
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"never seen: the room has {found}") from None

    async def members(self, room: str) -> dict[str, str]:
        """Return the membership of each person that has one, such as "join"."""
        found = await self.call("GET", f"rooms/{quote(room)}/members")
        return {one["state_key"]: one["content"]["membership"] for one in found["chunk"]}


@dataclass(slots=True)
class Synapse:
    """A server in a folder; `url` stays the same over restarts."""

    folder: Path
    port: int
    session: aiohttp.ClientSession
    _process: asyncio.subprocess.Process | None = None
    _admin: Member | None = None
    _people: dict[str, Member] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        """The SQLite file with all events."""
        return self.folder / "homeserver.db"

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str = "",
        query: Mapping[str, str | int] | None = None,
        media_type: str = "application/json",
    ) -> Any:
        """Send a request and return its answer. Raises RefusedBySynapse."""
        headers = {"Content-Type": media_type}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        async with self.session.request(
            method, self.url + path, params=query or {}, headers=headers, data=data
        ) as answer:
            found = await answer.json(content_type=None)
            if answer.status != 200:
                raise RefusedBySynapse(answer.status, found)
            return found

    async def start(self) -> None:
        """Start the server, and wait until it answers."""
        log = (self.folder / "synapse.log").open("ab")
        self._process = await asyncio.create_subprocess_exec(
            *(str(python_of_synapse()), "-m", "synapse.app.homeserver"),
            *("-c", str(self.folder / "homeserver.yaml")),
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
            stdout=log,
            stderr=STDOUT,
        )
        log.close()
        async with asyncio.timeout(60):
            while True:
                if self._process.returncode is not None:
                    raise AssertionError((self.folder / "synapse.log").read_text()[-3000:])
                try:
                    await self.call("GET", "/_matrix/client/versions")
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)
                else:
                    return

    async def kill(self) -> None:
        """End the server as a power cut would."""
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """End the server as an admin would."""
        if self._process and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()

    async def person(self, name: str, *, limited: bool = False, display: str = "") -> Member:
        """Register a person; their id has a number behind the name, so that it is theirs alone."""
        return await self._register(f"{name}{next(_numbers)}", limited=limited, display=display)

    async def admin(self) -> Member:
        """Return the account of the server's admin."""
        if not self._admin:
            self._admin = await self._register("admin", limited=True, admin=True)
        return self._admin

    async def log_in(self, person: Member) -> Member:
        """Return the same person with another token."""
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": person.user_id},
            "password": PASSWORD,
        }
        found = await self.call("POST", f"{_CLIENT}/login", body)
        return Member(self, person.user_id, found["access_token"])

    async def set_limit(self, person: Member, *, a_second: int = 0, burst: int = 0) -> None:
        """Limit a person's messages; 0 is no limit at all."""
        path = f"/_synapse/admin/v1/users/{quote(person.user_id)}/override_ratelimit"
        body = {"messages_per_second": a_second, "burst_count": burst}
        await (await self.admin()).call("POST", path, body)

    async def _register(
        self, name: str, *, limited: bool, admin: bool = False, display: str = ""
    ) -> Member:
        path = "/_synapse/admin/v1/register"
        nonce = (await self.call("GET", path))["nonce"]
        words = (nonce, name, PASSWORD, "admin" if admin else "notadmin")
        signed = hmac.new(_SECRET.encode(), "\0".join(words).encode(), hashlib.sha1)
        body = {"nonce": nonce, "username": name, "password": PASSWORD, "admin": admin}
        body |= {"mac": signed.hexdigest(), "displayname": display or name.rstrip("0123456789")}
        found = await self.call("POST", path, body)
        member = Member(self, found["user_id"], found["access_token"])
        if not limited:
            await self.set_limit(member)
        return member


@asynccontextmanager
async def running_synapse(folder: Path, **more: object) -> AsyncIterator[Synapse]:
    """Run a server whose data are in a folder; `more` are lines of its configuration."""
    python_of_synapse()
    port = free_port()
    _configure(folder, port, more)
    async with aiohttp.ClientSession() as session:
        synapse = Synapse(folder, port, session)
        try:
            await synapse.start()
            yield synapse
        finally:
            await synapse.kill()


def _configure(folder: Path, port: int, more: Mapping[str, object]) -> None:
    seed = base64.b64encode(os.urandom(32)).decode().rstrip("=")
    (folder / "signing.key").write_text(f"ed25519 a_test {seed}\n")
    log = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "root": {"level": "WARNING", "handlers": ["console"]},
    }
    (folder / "log.yaml").write_text(json.dumps(log))
    unlimited = {"per_second": 10_000, "burst_count": 10_000}
    listener = {"port": port, "tls": False, "type": "http", "bind_addresses": ["127.0.0.1"]}
    configuration = {
        "server_name": SERVER,
        "pid_file": str(folder / "homeserver.pid"),
        "listeners": [{**listener, "resources": [{"names": ["client", "media"]}]}],
        "database": {"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}},
        "log_config": str(folder / "log.yaml"),
        "media_store_path": str(folder / "media"),
        "signing_key_path": str(folder / "signing.key"),
        "registration_shared_secret": _SECRET,
        "bcrypt_rounds": 4,
        "report_stats": False,
        "trusted_key_servers": [],
        "federation_domain_whitelist": [],
        "presence": {"enabled": False},
        "rc_login": {"address": unlimited, "account": unlimited, "failed_attempts": unlimited},
        "rc_registration": unlimited,
        "rc_joins": {"local": unlimited, "remote": unlimited},
        "rc_joins_per_room": unlimited,
        "rc_invites": {"per_room": unlimited, "per_user": unlimited, "per_issuer": unlimited},
        "rc_room_creation": unlimited,
        **more,
    }
    # JSON is YAML.
    (folder / "homeserver.yaml").write_text(json.dumps(configuration))


async def eventually(check: Callable[[], Awaitable[object]], *, seconds: float = 60.0) -> None:
    """Wait until a check is true."""
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.1)


def relation_of(content: Content) -> Content:
    """Return the relation of an event's content; {} if it has none."""
    return cast(Content, content.get("m.relates_to") or {})
