"""What is chosen, as a file: what is exported can be imported, and mistakes name their place."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bot.access.preferences import PreferenceStore, place_of
from bot.app.export import NotImported, export_person, from_json, read_text, to_json
from bot.domain import Json, Person, Preferences, ThreadKey
from bot.errors import CannotStart
from bot.store import Store
from tests.support.at_work import make_queue, make_turn
from tests.support.process import python
from tests.support.service import make_settings

KEY = ThreadKey("discord", "1", "2", "3:%4")
KEY_IN_SLACK = ThreadKey("slack", "T0123ABCD", "C1", "t1")
EVERYTHING = {
    place_of(KEY, "thread"): Preferences(persona='A "pirate"\n\N{PARROT}', follow="mention"),
    place_of(KEY, "channel"): Preferences(
        model="large/one", people=("u1", "u2"), roles=("r1",), questions_per_day=5
    ),
    place_of(KEY, "server"): Preferences(
        tools="off", temperature=0.0, max_tokens=9, tokens_per_day=7, server_tokens_per_day=8
    ),
    place_of(replace(KEY, platform="web", workspace=""), "channel"): Preferences(model="x"),
}


def test_what_is_written_reads_the_same() -> None:
    assert from_json(to_json(EVERYTHING)) == EVERYTHING


async def test_an_import_replaces_the_places_that_it_names_and_no_others(store: Store) -> None:
    preferences = PreferenceStore(store=store)
    for thread in ("3:%4", "5"):
        await preferences.change(
            replace(KEY, thread=thread),
            "thread",
            {"temperature": 1},
            by="ann",
        )

    await preferences.replace_all(from_json(to_json(EVERYTHING)))

    other = {place_of(replace(KEY, thread="5"), "thread"): Preferences(temperature=1.0)}
    assert await preferences.read_all() == EVERYTHING | other


async def test_an_import_clears_a_place_in_which_it_chooses_nothing(store: Store) -> None:
    preferences = PreferenceStore(store=store)
    await preferences.replace_all(EVERYTHING)

    await preferences.replace_all(dict.fromkeys(EVERYTHING, Preferences()))

    assert await preferences.read_all() == {}
    assert await store.redis.keys(f"{store.key('preferences')}*") == []


def file_of(*places: Json) -> str:
    file = {"format": "parley-preferences", "version": 1, "places": list(places)}
    return json.dumps(file, indent=1)


def place(**fields: Json) -> Json:
    return {"platform": "discord", "workspace": "1", "chosen": {}, **fields}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "line 1: this is no JSON: Expecting value"),
        ('{\n"format": x', "line 2: this is no JSON: Expecting value"),
        ("[" * 100_000, "this is no JSON that can be read"),
        ("[]", 'this is no file of preferences: "format" is not "parley-preferences"'),
        (
            file_of().replace('"version": 1', '"version": 2'),
            "this version reads files of version 1",
        ),
        (file_of().replace('"places"', '"more": 1,\n "places"'), "a file has "),
        (file_of().replace("[]", "{}"), "a file has "),
        (file_of(place(), 7), "place 2: it must be an object"),
        (file_of(place(), place(channel="2", speed=1)), "place 2: it has no field speed"),
        (file_of(place(channel=2)), "place 1: platform, workspace, channel, thread must be texts"),
        (file_of(place(chosen=[])), "place 1: platform, workspace, channel, thread must be texts"),
        (file_of(place(platform="")), "place 1: it has no platform"),
        (file_of(place(platform="slak")), "place 1: its platform is none of discord, matrix, "),
        (file_of(place(thread="3")), "place 1: it has no channel"),
        (file_of(place(workspace="dm")), "place 1: There is no server here."),
        (file_of(place(chosen={"modle": "x"})), "place 1: You cannot choose a modle"),
        (file_of(place(chosen={"model": ""})), "place 1: There is no such model."),
        (file_of(place(chosen={"model": "x", "temperature": 3})), "place 1: The temp"),
        (file_of(place(), place()), "place 2: it comes twice"),
        (file_of(place(speed=1), place(thread="3")), "place 1: it has no field speed\nplace 2: "),
    ],
)
def test_a_mistake_names_its_place(text: str, sentence: str) -> None:
    with pytest.raises(NotImported) as refused:
        from_json(text)

    assert str(refused.value).startswith(sentence)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff")

    for name in ("file", "missing"):
        with pytest.raises(NotImported, match=name):
            read_text(str(tmp_path / name), io.StringIO())


async def test_the_command_line_imports_and_exports(data_dir: Path, own_store: Store) -> None:
    (data_dir / "file.json").write_text(to_json(EVERYTHING), encoding="utf-8")
    variables = {"REDIS_URL": own_store.url}

    async def said(*words: str) -> tuple[int | None, str, str]:
        async with python("-m", "bot", *words, folder=data_dir, variables=variables) as process:
            out, complaints = await process.communicate()
        return process.returncode, out.decode(), complaints.decode()

    assert await said("import", "file.json") == (0, "Imported what is chosen in 4 places.\n", "")
    status, out, _ = await said("export")
    assert (status, from_json(out)) == (0, EVERYTHING)
    status, out, complaints = await said("import", "missing.json")
    assert (status, out) == (1, "")
    assert complaints.startswith("bot: missing.json cannot be read")


HOSTILE = "zebra \x1b[2J\x9b31m\u202e\u2066\u2028\U000e0041 \N{PARROT}"


async def test_a_person_gets_what_is_kept_of_them_as_json_that_controls_no_terminal(
    own_store: Store, tmp_path: Path
) -> None:
    queue, ann = make_queue(own_store), Person("U0123ABCD", "Ann")
    for number, key in enumerate((KEY_IN_SLACK, replace(KEY_IN_SLACK, thread="t2"))):
        await queue.admit(
            replace(make_turn(number, key=key, person=ann, text=HOSTILE), id=f"slack:{number}")
        )
    variables = {"REDIS_URL": own_store.url, "AUDIT_FILE": "audit"}

    async with python(
        "-m", "bot", "export", "<@U0123ABCD>", folder=tmp_path, variables=variables
    ) as bot:
        out, report = await bot.communicate()

    text = out.decode()
    file = json.loads(text)
    assert {name: file[name] for name in ("format", "version", "platform", "id")} == {
        "format": "parley-person",
        "version": 1,
        "platform": "slack",
        "id": "U0123ABCD",
    }
    turns = {it["key"]: it["value"] for it in file["found"] if it["key"].startswith("turn:")}
    assert [turns[f"turn:slack:{it}"]["text"] for it in range(2)] == [HOSTILE] * 2
    assert text.replace("\n", "").isprintable()
    assert "\N{PARROT}" in text
    assert report.decode().startswith("Found 2 questions in 2 conversations, and other entries: ")
    assert "messages on the platform" in report.decode()
    assert (
        (tmp_path / "audit")
        .read_text()
        .endswith("exported platform=slack person=U0123ABCD by=operator\n")
    )
    assert "zebra" not in (tmp_path / "audit").read_text()


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("U0123ABCE", "the store has nothing of U0123ABCE: is the id right?"),
        ("T0123ABCD", "T0123ABCD is the id of a server: name a person"),
        ("C0123ABCD", "'C0123ABCD' is no id of a person or a server"),
    ],
)
async def test_an_id_of_nobody_prints_nothing(own_store: Store, written: str, problem: str) -> None:
    out, report = io.StringIO(), io.StringIO()

    with pytest.raises(CannotStart, match=re.escape(problem)):
        await export_person(make_settings(own_store, {}), written, out, report=report)

    assert (out.getvalue(), report.getvalue()) == ("", "")
