"""The files of a prompt: each is fetched and read once, and what was read is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from bot.concurrency import cancelled
from bot.domain import Exchange, FileRef, FileText
from bot.files.fetching import FileFetcher
from bot.files.kinds import Problem, is_final
from bot.ports import Platform
from bot.text.files import plain_name
from bot.turns.lease import Lease
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
        """Return the files of a question that are not `known` and will be read."""
        return [one for one in asked.all_files[: self._most] if one.id not in known]

    async def read(
        self, asked: Exchange, known: Mapping[str, FileText], platform: Platform, lease: Lease
    ) -> dict[str, FileText]:
        """Read and store the missing files of a question; further ones get the reason.

        Raises LeaseLost.
        """
        problem = Problem.MANY.value.replace("{most}", str(self._most))
        found = {
            one.id: FileText(plain_name(one.name), problem=problem)
            for one in asked.all_files
            if one.id not in known
        }

        async def read(file: FileRef) -> None:
            found[file.id] = text = await self._fetcher.read(file, platform)
            if is_final(text):
                await lease.save_file(file, text)

        tasks = [asyncio.create_task(read(file)) for file in self.missing(asked, known)]
        try:
            for task in tasks:
                await task
        finally:
            await cancelled(*tasks)
        return found
