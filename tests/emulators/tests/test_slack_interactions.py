"""Commands, response_url, modals, menus and the Home tab on the Slack emulator."""

from __future__ import annotations

import asyncio

import pytest
from slack_sdk.webhook.async_client import AsyncWebhookClient

from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.payload import Payload
from tests.support.slack_app import Endpoint, StillClock, endpoint, refusal, writer
from tests.support.waiting import until


async def test_a_slash_command_that_is_not_answered_in_time_is_not_tried_again() -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app:
        app.seconds = 30.0
        using = slack.slash(slack.channel_id, slack.user("Ann"), "/unknown", "")
        asking = asyncio.create_task(using)
        await until(lambda: app.told)
        slack.clock.advance(3.0)
        delivery = await asking

        slack.clock.advance(3600.0)
        await asyncio.sleep(0.05)

        assert delivery.status is None
        assert slack.deliveries == [delivery]


async def test_an_answer_with_an_unknown_field_is_a_violation() -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app:
        await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "")
        later = AsyncWebhookClient(str(app.last["response_url"]))

        await later.send_dict({"text": "x", "silent": True, "mrkdwn": "maybe"})

        noted, slack.violations[:] = list(slack.violations), []
        assert noted == [
            "response_url: no argument is called silent",
            "response_url: mrkdwn='maybe' is not of type boolean",
        ]


async def test_a_response_url_takes_five_answers_in_half_an_hour() -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app:
        urls = []
        for _ in range(2):
            await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "")
            urls.append(str(app.last["response_url"]))
        url, other = urls
        answers = [await AsyncWebhookClient(url).send(text=str(number)) for number in range(6)]
        strange = await AsyncWebhookClient(f"{url}0").send(text="hello")
        slack.clock.advance(1800.1)
        late = await AsyncWebhookClient(other).send(text="too late")

        assert [answer.status_code for answer in answers] == [200] * 5 + [404]
        assert "used_url" in answers[5].body
        assert (strange.status_code, "no_such_hook" in strange.body) == (404, True)
        assert (late.status_code, "expired_url" in late.body) == (404, True)
        assert len(slack.ephemerals) == 5


PLAIN: Payload = {"type": "plain_text", "text": "Words"}


def entry(name: str = "words", **more: object) -> Payload:
    element: Payload = {"type": "plain_text_input", "action_id": "value", **more}
    return {"type": "input", "block_id": name, "label": PLAIN, "element": element}


def modal(*blocks: Payload, **more: object) -> Payload:
    shown = list(blocks or [entry()])
    return {"type": "modal", "title": PLAIN, "submit": PLAIN, "blocks": shown, **more}


async def pressed(slack: SlackEmulator, app: Endpoint, user: str) -> str:
    """Let a person use a command, and return its trigger."""
    await slack.slash(slack.channel_id, user, "/parley", "")
    return str(app.last["trigger_id"])


@pytest.mark.parametrize(
    ("view", "why"),
    [
        ({"type": "home", "blocks": [entry()]}, "type"),
        (modal(title={**PLAIN, "text": "x" * 25}), "24"),
        ({**modal(), "submit": None}, "submit"),
        (modal(private_metadata="x" * 3001), "3001"),
        (modal(colour="red"), "colour"),
        (modal({"type": "markdown", "text": "hi"}), "block"),
        (modal(entry("same"), entry("same")), "block_id"),
        (modal(entry(max_length=3001)), "3000"),
        (modal(entry(colour="red")), "colour"),
        (modal(entry(initial_value="x" * 3001)), "3001"),
    ],
    ids=str,
)
async def test_a_view_that_slack_does_not_take_is_refused(view: Payload, why: str) -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app, writer(slack) as client:
        ann = slack.user("Ann")
        trigger = await pressed(slack, app, ann)

        error = await refusal(client, "views.open", {"trigger_id": trigger, "view": view})

        assert error in ("invalid_arguments", "invalid_blocks"), why
        assert slack.modal(ann) is None


async def test_a_trigger_opens_one_view_within_three_seconds() -> None:
    clock = StillClock()
    async with SlackEmulator(clock=clock) as slack, endpoint(slack) as app, writer(slack) as client:
        ann = slack.user("Ann")
        found = [await pressed(slack, app, ann) for _ in range(2)]
        await client.views_open(trigger_id=found[0], view=modal())

        again = {"trigger_id": found[0], "view": modal()}
        assert await refusal(client, "views.open", again) == "exchanged_trigger_id"
        clock.advance(3.1)
        late = {"trigger_id": found[1], "view": modal()}
        assert await refusal(client, "views.open", late) == "expired_trigger_id"


async def test_an_outdated_view_is_not_changed_by_its_hash() -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app, writer(slack) as client:
        ann = slack.user("Ann")
        trigger = await pressed(slack, app, ann)
        opened = (await client.views_open(trigger_id=trigger, view=modal()))["view"]
        await client.views_update(view_id=opened["id"], view=modal(entry("other")))

        outdated = {"view_id": opened["id"], "hash": opened["hash"], "view": modal()}
        assert await refusal(client, "views.update", outdated) == "hash_conflict"
        unknown = {"view_id": "V1", "view": modal()}
        assert await refusal(client, "views.update", unknown) == "not_found"
        form = slack.modal(ann)
        assert form is not None
        assert [*form.fields] == ["other"]


async def test_a_submitted_form_is_sent_with_its_values_and_closes() -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app, writer(slack) as client:
        ann = slack.user("Ann")
        trigger = await pressed(slack, app, ann)
        option = {"text": PLAIN, "value": "one"}
        choice: Payload = {"type": "static_select", "action_id": "c", "options": [option]}
        people: Payload = {"type": "multi_users_select", "action_id": "p"}
        blocks = (
            entry(max_length=5),
            {**entry("choice"), "element": choice},
            {**entry("people"), "element": people, "optional": True},
        )
        await client.views_open(trigger_id=trigger, view=modal(*blocks, private_metadata="kept"))

        with pytest.raises(LookupError, match="fill in"):
            await slack.submit(ann, words="hello")
        with pytest.raises(LookupError, match="too long"):
            await slack.submit(ann, words="hello!", choice="one")
        with pytest.raises(LookupError, match="no colour"):
            await slack.submit(ann, colour="red")
        await slack.submit(ann, words="hello", choice="one", people=[ann])

        view = app.last["view"]
        assert isinstance(view, dict)
        assert view["private_metadata"] == "kept"
        assert view["state"]["values"] == {
            "words": {"value": {"type": "plain_text_input", "value": "hello"}},
            "choice": {"c": {"type": "static_select", "selected_option": option}},
            "people": {"p": {"type": "multi_users_select", "selected_users": [ann]}},
        }
        assert slack.modal(ann) is None


async def test_prompts_of_an_agent_are_suggested_without_a_thread() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        ts = await slack.say(dm, ann, "hello")
        prompts = [{"title": "Hi", "message": "Hello?"}]

        await client.assistant_threads_setSuggestedPrompts(
            channel_id=dm, thread_ts=ts, prompts=prompts
        )
        silent = slack.suggested(dm)
        await client.assistant_threads_setSuggestedPrompts(channel_id=dm, prompts=prompts)

        assert silent == ("", [])
        assert slack.suggested(dm) == ("", [("Hi", "Hello?")])
