"""What the Slack emulator says of files, and to whom it sends them."""

from __future__ import annotations

import aiohttp
import pytest
from slack_sdk.web.async_client import AsyncWebClient

from tests.emulators.slack import SCOPES, SlackEmulator
from tests.support.slack_app import endpoint, refusal, writer
from tests.support.waiting import until

FILE = ("notes.txt", b"in it")


async def get(address: object, token: str) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(str(address), headers=headers, allow_redirects=False) as response,
    ):
        return response.status, await response.text()


async def test_a_file_is_sent_to_the_bots_token_and_others_get_the_page_to_log_in() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "Look!", files=(FILE,))
        thread = await client.conversations_replies(channel=slack.channel_id, ts=ts)
        [file] = thread["messages"][0]["files"]
        info = (await client.files_info(file=file["id"]))["file"]

        assert info == file
        address = info["url_private_download"]
        assert await get(address, slack.bot_token) == (200, "in it")
        status, page = await get(address, "xoxb-wrong")
        assert (status, page[:9]) == (200, "<!DOCTYPE")
        assert slack.files.fetched == ["notes.txt"]


async def test_without_the_scope_nothing_is_said_or_sent() -> None:
    async with SlackEmulator(scopes=SCOPES - {"files:read"}) as slack, writer(slack) as client:
        ts = await slack.say(slack.channel_id, slack.user("Ann"), "Look!", files=(FILE,))
        thread = await client.conversations_replies(channel=slack.channel_id, ts=ts)
        [file] = thread["messages"][0]["files"]

        assert await refusal(client, "files.info", {"file": file["id"]}) == "missing_scope"
        _, page = await get(file["url_private"], slack.bot_token)
        assert page.startswith("<!DOCTYPE")


async def test_a_file_is_known_only_where_the_bot_is_and_until_it_is_deleted() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ann, elsewhere = slack.user("Ann"), slack.channel("elsewhere", member=False)
        await slack.say(elsewhere, ann, "Look!", files=(FILE,))
        ts = await slack.say(slack.channel_id, ann, "Look!", files=(FILE,))
        await slack.delete_file(slack.channel_id, ts, "notes.txt")

        errors = [
            await refusal(client, "files.info", {"file": f"F0FILE000{number}"})
            for number in (1, 2, 3)
        ]
        assert errors == ["file_not_found", "file_deleted", "file_not_found"]


async def test_a_deleted_file_is_told_as_a_change_that_is_no_edit() -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app:
        ts = await slack.say(slack.channel_id, slack.user("Ann"), "Look!", files=(FILE,))

        await slack.delete_file(slack.channel_id, ts, "notes.txt")
        await until(lambda: len(app.told) == 2)

        [_, changed] = app.events("message")
        message = changed["message"]
        assert isinstance(message, dict)
        assert changed["subtype"] == "message_changed"
        assert message["files"] == [{"id": "F0FILE0001", "mode": "tombstone"}]
        assert "edited" not in message


async def test_a_message_from_another_workspace_has_only_the_id_of_a_file() -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app, writer(slack) as client:
        eve = slack.user("Eve")
        slack.foreign[eve] = "T0OTHER001"

        await slack.say(slack.channel_id, eve, "Look!", files=(FILE,))
        await until(lambda: app.told)

        [event] = app.events("message")
        assert isinstance(event["files"], list)
        [file] = event["files"]
        assert file["file_access"] == "check_file_info"
        assert "name" not in file
        assert (await client.files_info(file=file["id"]))["file"]["name"] == "notes.txt"


async def uploaded(client: AsyncWebClient, name: str) -> str:
    place = await client.files_getUploadURLExternal(filename=name, length=5)
    async with aiohttp.ClientSession() as session:
        await session.post(str(place["upload_url"]), data=b"in it")
    await client.files_completeUploadExternal(files=[{"id": place["file_id"]}])
    return str(place["file_id"])


@pytest.mark.parametrize("replaces", [True, False])
async def test_an_update_shares_files_of_the_bot_and_replaces_or_adds_to_them(
    replaces: bool,
) -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        slack.files.replaces = replaces
        place = slack.channel_id
        ts = (await client.chat_postMessage(channel=place, text="x"))["ts"]
        first, second = [await uploaded(client, name) for name in ("a.txt", "b.txt")]

        shown = []
        for ids in ([first], [first, second], None, [second]):
            answer = await client.chat_update(channel=place, ts=ts, text="x", file_ids=ids)
            shown.append([one["name"] for one in answer["message"]["files"]])
        await client.chat_update(channel=place, ts=ts, text="x", file_ids="[]")

        last = ["b.txt"] if replaces else ["a.txt", "b.txt"]
        assert shown == [["a.txt"], ["a.txt", "b.txt"], ["a.txt", "b.txt"], last]
        left = [name for name, _ in slack.screen(place)[-1].files]
        assert left == ([] if replaces else ["a.txt", "b.txt"])


async def test_what_was_not_uploaded_whole_can_be_neither_completed_nor_shared() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        place = await client.files_getUploadURLExternal(filename="a.txt", length=5)
        file = str(place["file_id"])
        ts = (await client.chat_postMessage(channel=slack.channel_id, text="x"))["ts"]

        update = {"channel": slack.channel_id, "ts": ts, "text": "x", "file_ids": file}
        assert await refusal(client, "chat.update", update) == "file_not_found"
        complete = {"files": f'[{{"id": "{file}"}}]'}
        assert await refusal(client, "files.completeUploadExternal", complete) == "file_not_found"
