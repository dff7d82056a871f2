"""GGUF files by their names at the Hub, from an emulated one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bot.errors import CannotStart
from bot.local.hub import choose, fetch, mmproj_beside
from config.settings import Settings
from tests.emulators.hub import HubEmulator, hub
from tests.support.waiting import until

NAME = "maker/model-GGUF:Q4_K_M"
CONTENT = b"GGUF" * 100_000


class Told:
    """What progress was told, by work."""

    def __init__(self) -> None:
        self.works: dict[str, list[float | None]] = {}

    def __call__(self, work: str, done: float | None) -> None:
        self.works.setdefault(work, []).append(done)


async def fetched(emulator: HubEmulator, cache: Path, told: Told, name: str = NAME) -> Path:
    settings = Settings(local_model_path=name, data_dir=cache)
    return await fetch(settings, endpoint=emulator.url, progress=told)


@pytest.mark.parametrize(
    ("files", "quantisation", "chosen"),
    [
        (["a.Q4_K_M.gguf", "a.Q4_K_S.gguf", "README.md"], "q4_k_m", ["a.Q4_K_M.gguf"]),
        (["a.Q4_K.gguf", "a.Q4_K_M.gguf"], "Q4_K", ["a.Q4_K.gguf"]),
        (["mmproj-Q8_0.gguf", "m-Q8_0.gguf"], "Q8_0", ["m-Q8_0.gguf"]),
        (
            ["Q8_0/m-Q8_0-00002-of-00002.gguf", "Q8_0/m-Q8_0-00001-of-00002.gguf"],
            "Q8_0",
            ["Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf"],
        ),
        (["a.Q4_K_M.gguf"], "Q5_K_M", []),
    ],
)
def test_the_file_of_a_quantisation_is_chosen(
    files: list[str], quantisation: str, chosen: list[str]
) -> None:
    assert choose(files, quantisation) == chosen


async def test_a_file_is_downloaded_once_and_its_progress_reported(tmp_path: Path) -> None:
    told = Told()
    async with hub() as emulator:
        emulator.files = {
            "maker/model-GGUF/model.Q4_K_M.gguf": CONTENT,
            "maker/model-GGUF/model.Q8_0.gguf": b"other",
        }
        path = await fetched(emulator, tmp_path, told)
        content = path.read_bytes()
        asked = len(emulator.asked)
        again = await fetched(emulator, tmp_path, told)
        hits = len(emulator.asked)

    assert content == CONTENT
    assert (again, hits) == (path, asked)
    assert {work: done[-1] for work, done in told.works.items()} == {
        "Downloading model.Q4_K_M.gguf": 1.0
    }


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["mmproj-BF16.gguf", "mmproj-F32.gguf", "mmproj-F16.gguf"], "mmproj-F16.gguf"),
        (["mmproj-model-f16.gguf", "mmproj-Q8_0.gguf"], "mmproj-model-f16.gguf"),
        (["sub/MMPROJ-Q8_0.GGUF", "README.md"], "sub/MMPROJ-Q8_0.GGUF"),
        (["mmproj/README.md", "mmproj.gguf.md"], ""),
    ],
)
async def test_the_mmproj_that_every_cpu_computes_is_downloaded_beside_a_model(
    files: list[str], chosen: str, tmp_path: Path
) -> None:
    async with hub() as emulator:
        emulator.files = {f"maker/model-GGUF/{file}": file.encode() for file in files}
        emulator.files["maker/model-GGUF/Q4/model.Q4_K_M.gguf"] = CONTENT
        path = await fetched(emulator, tmp_path, Told())

    mmproj = mmproj_beside(path)
    assert path.read_bytes() == CONTENT
    assert (mmproj.read_text() if mmproj else "") == chosen


@pytest.mark.parametrize(("vision", "own"), [(False, False), (None, True)])
async def test_no_mmproj_is_downloaded_if_it_is_not_needed(
    tmp_path: Path, vision: bool | None, own: bool
) -> None:
    settings = Settings(
        local_model_path=NAME,
        data_dir=tmp_path,
        vision=vision,
        local_mmproj_path=tmp_path / "own.gguf" if own else None,
    )
    async with hub() as emulator:
        emulator.files = {
            "maker/model-GGUF/model.Q4_K_M.gguf": CONTENT,
            "maker/model-GGUF/mmproj-F16.gguf": b"mmproj",
        }
        path = await fetch(settings, endpoint=emulator.url, progress=Told())

    assert path.read_bytes() == CONTENT
    assert mmproj_beside(path) is None


async def test_all_parts_of_a_model_are_downloaded(tmp_path: Path) -> None:
    part = "m-Q4_K_M-0000{}-of-00002.gguf"
    async with hub() as emulator:
        emulator.files = {f"maker/model-GGUF/Q4/{part.format(n)}": b"part" for n in (1, 2)}
        path = await fetched(emulator, tmp_path, Told())

    assert path.name == part.format(1)
    assert (path.parent / part.format(2)).read_bytes() == b"part"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "does not exist at Hugging Face"),
        ({"maker/model-GGUF/config.json": b"{}"}, "has no GGUF file"),
        ({"maker/model-GGUF/m.Q8_0.gguf": b"x"}, "has no Q4_K_M, but m.Q8_0.gguf"),
    ],
)
async def test_what_cannot_be_had_is_reported(
    tmp_path: Path, files: dict[str, bytes], told: str
) -> None:
    async with hub() as emulator:
        emulator.files = files
        with pytest.raises(CannotStart, match=told):
            await fetched(emulator, tmp_path, Told())


async def test_a_hub_that_is_away_is_reported(tmp_path: Path) -> None:
    async with hub() as emulator:
        pass
    with pytest.raises(CannotStart, match="LOCAL_MODEL_PATH=maker/model-GGUF:Q4_K_M"):
        await fetched(emulator, tmp_path, Told())


async def test_a_gated_model_is_reported(tmp_path: Path) -> None:
    async with hub() as emulator:
        emulator.files = {"maker/model-GGUF/m.Q4_K_M.gguf": b"x"}
        emulator.gated = {"maker/model-GGUF"}
        with pytest.raises(CannotStart, match="accept its license"):
            await fetched(emulator, tmp_path, Told())


async def test_without_a_token_none_of_the_machine_is_sent_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_machine")
    async with hub() as emulator:
        emulator.files = {"maker/model-GGUF/m.Q4_K_M.gguf": CONTENT}
        await fetched(emulator, tmp_path, Told())

    assert {given for _, given in emulator.asked} == {""}


async def test_a_cancelled_download_ends_and_the_next_one_has_it_all(tmp_path: Path) -> None:
    get = ("GET m.Q4_K_M.gguf", "")
    async with hub() as emulator:
        emulator.files = {"maker/model-GGUF/m.Q4_K_M.gguf": CONTENT}
        emulator.stalls = True
        fetching = asyncio.create_task(fetched(emulator, tmp_path, Told()))
        await until(lambda: get in emulator.asked)
        fetching.cancel()
        await asyncio.wait({fetching})
        emulator.stalls = False
        # It waits for the first one's lock.
        path = await fetched(emulator, tmp_path, Told())

    assert fetching.cancelled()
    assert path.read_bytes() == CONTENT
    assert emulator.asked.count(get) == 2
