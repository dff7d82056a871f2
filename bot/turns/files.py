"""The files of a prompt: each is fetched and read once, and what was read is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bot.concurrency import each
from bot.domain import Exchange, FileRef, FileText, Picture
from bot.files.fetching import FileFetcher
from bot.files.kinds import Problem, is_final
from bot.ports import Platform
from bot.text.files import plain_name
from bot.turns.lease import Attempt
from bot.turns.records import History


class FileReader:
    """Reads at most `most` files for a question: its own, and then the newest before it."""

    def __init__(self, *, history: History, fetcher: FileFetcher, most: int) -> None:
        self._history = history
        self._fetcher = fetcher
        self._most = most

    async def stored(self, exchanges: Sequence[Exchange]) -> dict[str, FileText]:
        """Return what earlier attempts and questions have read, by the ids of the files.

        Raises StoreUnavailable.
        """
        return await self._history.file_texts([one.turn_id for one in exchanges if one.all_files])

    def missing(self, asked: Exchange, known: Mapping[str, FileText]) -> Sequence[FileRef]:
        """Return the files of a question that will be read: those that are not `known`.

        Pictures are among them: a model that sees needs more than their descriptions.
        """
        return [
            one
            for one in asked.all_files[: self._most]
            if one.id not in known or known[one.id].is_description
        ]

    async def read(
        self, asked: Exchange, known: Mapping[str, FileText], platform: Platform, attempt: Attempt
    ) -> dict[str, FileText | Picture]:
        """Read and store the missing files of a question; further ones get the reason.

        Pictures are not stored. Raises LeaseLost.
        """
        problem = Problem.MANY.value.replace("{most}", str(self._most))
        found: dict[str, FileText | Picture] = {
            one.id: FileText(plain_name(one.name), problem=problem)
            for one in asked.all_files
            if one.id not in known
        }

        async def read(file: FileRef) -> None:
            one = await self._fetcher.read(file, platform, held=attempt.held)
            if isinstance(one, Picture):
                found[file.id] = replace(one, known=known.get(file.id))
            elif file.id not in known:
                found[file.id] = one
                if is_final(one):
                    await attempt.lease.save_file(file, one)

        await each(*map(read, self.missing(asked, known)))
        return found
