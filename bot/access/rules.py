"""Decides who may use the bot, where, and how much in a day."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from bot.access.preferences import InvalidPreference, Scope
from bot.access.quotas import Quota
from bot.domain import Asker, Json, Person, Preferences, ThreadKey
from bot.errors import NotAllowed
from bot.languages import later, number, say

_CHANNEL_REFUSED = "I do not answer in this place. The person who runs me can change that."
_DIRECT = (
    "I do not answer direct messages from you. Please ask me in a channel or room with others."
)
_PERSON = "I may not answer you here. The person who runs me can change that."
_MOST: Mapping[str, str] = {
    "questions": later("You can allow people at most {limit} questions a day here."),
    "tokens": later("You can allow people at most {limit} tokens a day here."),
    "server_tokens": later("You can allow everybody together at most {limit} tokens a day here."),
}
_ROLES = "Here I only answer people whom an admin has chosen. Please ask an admin."


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """The operator's rules of access; an empty list is no restriction.

    The ids of all platforms share one list, because their forms differ. A channel includes its
    threads; a thread may also be listed by itself. `direct_messages` is None if the lists decide.
    `quota` applies if an admin chose no other.
    """

    servers: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    people: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()
    admins: frozenset[str] = frozenset()
    direct_messages: bool | None = None
    quota: Quota = field(default_factory=Quota)

    def is_admin(self, person: Person) -> bool:
        """Whether a person may change all settings, in every place."""
        return person.id in self.admins and person.id not in self.blocked

    def check(
        self,
        thread: ThreadKey,
        person: Person,
        asker: Asker,
        chosen: Mapping[Scope, Preferences] | None = None,
    ) -> None:
        """Raise NotAllowed if a person may not use the bot in a thread."""
        if asker.operator:
            return
        if person.id in self.blocked:
            raise NotAllowed(_PERSON, rule="BLOCKED_PEOPLE")
        # The platform has already checked the account.
        if asker.signed_in:
            return
        # Answers are visible to everybody there, so these lists apply to admins, too.
        is_listed = not self.channels or self.channels & {thread.channel, thread.thread}
        if not asker.direct and not (is_listed and self._is_server(thread, asker)):
            rule = "ALLOWED_SERVERS" if is_listed else "ALLOWED_CHANNELS"
            raise NotAllowed(_CHANNEL_REFUSED, rule=rule)
        if self.is_admin(person):
            return
        if asker.direct and not self._is_direct(thread, person, asker):
            raise NotAllowed(_DIRECT, rule="DIRECT_MESSAGES")
        if not _is_among(person, asker, self.people, self.roles):
            raise NotAllowed(_PERSON, rule="ALLOWED_PEOPLE")
        rules = (chosen or {}).values()
        if not all(_is_among(person, asker, it.people, it.roles) for it in rules):
            raise NotAllowed(_ROLES, rule="chosen")

    def quota_of(
        self, person: Person, asker: Asker, chosen: Mapping[Scope, Preferences] | None = None
    ) -> Quota:
        """Return the quota of a person: a channel's over its server's over the operator's.

        A limit is not above that of the place around it, even if it was chosen before that one.
        """
        if asker.operator or self.is_admin(person):
            return Quota()
        quota = self.quota
        for one in (it for scope in ("server", "channel") if (it := (chosen or {}).get(scope))):
            quota = replace(
                quota,
                questions=_limit(one, one.questions_per_day, quota.questions),
                tokens=_limit(one, one.tokens_per_day, quota.tokens),
                server_tokens=_limit(one, one.server_tokens_per_day, quota.server_tokens),
            )
        return quota

    def with_limits(
        self,
        person: Person,
        scope: Scope,
        changes: Mapping[str, Json],
        chosen: Mapping[Scope, Preferences],
    ) -> Mapping[str, Json]:
        """Return changes, with a note if an admin of ADMINS sets limits for a place.

        Raises InvalidPreference if another person's limit is above that of the place around it, or
        of all: otherwise the admins of any server could spend what the operator pays.
        """
        limits = [value for name, value in changes.items() if name.endswith("_per_day")]
        if self.is_admin(person):
            raised = any(value is not None for value in limits) or None
            return {**changes, "raised": raised} if limits else changes
        around: Mapping[Scope, Preferences] = {
            it: one for it, one in chosen.items() if scope == "channel" and it == "server"
        }
        quota = self.quota_of(person, Asker(), around)
        for name, value in changes.items():
            of = name.removesuffix("_per_day")  # as in a quota
            limit = getattr(quota, of, None)
            if limit is not None and isinstance(value, int) and value > limit:
                raise InvalidPreference(say(_MOST[of], limit=number(limit)), field=name)
        return changes

    def _is_server(self, thread: ThreadKey, asker: Asker) -> bool:
        # A person of another workspace in a shared channel needs both.
        workspaces = {thread.workspace, asker.home or thread.workspace}
        return not self.servers or workspaces <= self.servers

    def _is_direct(self, thread: ThreadKey, person: Person, asker: Asker) -> bool:
        if self.direct_messages is not None:
            return self.direct_messages
        # People who are listed may ask in private. Others may if the lists of places allow it: in
        # Discord a direct message is in no server.
        allows_direct = not self.channels and self._is_server(thread, asker)
        return person.id in self.people or allows_direct


def _is_among(
    person: Person, asker: Asker, people: Collection[str], roles: Collection[str]
) -> bool:
    return not (people or roles) or person.id in people or not set(asker.roles).isdisjoint(roles)


def _limit(one: Preferences, chosen: int | None, around: int | None) -> int | None:
    if chosen is None or around is None or one.raised:
        return around if chosen is None else chosen
    return min(chosen, around)
