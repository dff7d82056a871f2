"""The real llama.cpp calls a tool: with the demo model, and a template that knows tools.

The demo model's own template has none, so a copy of its file gets another one, of the same length.
It is too small to call a tool by itself; it repeats a call that its prompt has.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bot.domain import Message, Tool, ToolCall
from bot.local.child_process import LocalServer
from bot.local.llama_cpp import serve
from bot.model.client import ModelClient
from bot.model.context_window import ContextWindowModel
from bot.model.server import ModelServer
from bot.model.transport import connect
from bot.tokens.counters import TokenEstimator
from config.settings import Settings
from tests.local.test_llama_cpp import demo_file

ANSWER = 40  # tokens
SETTINGS = Settings(gpu_layers=0, context_tokens=1024, max_tokens=ANSWER, temperature=0.0)
TEMPLATE = """\
{% if tools %}<|im_start|>system
{{tools|tojson}}<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{m.role}}
{{m.content or ''}}{% for c in m.tool_calls or [] %}<tool_call>
{"name": "{{c.function.name}}", "arguments": {{c.function.arguments|tojson}}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{%endif%}"""
SWITCH = Tool(
    "switch",
    "Switches the light.",
    {
        "type": "object",
        "properties": {"light": {"type": "string", "enum": ["on", "off"]}},
        "required": ["light"],
    },
)
ON = [ToolCall(f"Ab3dE6gH{number}", "switch", '{"light": "on"}') for number in range(4)]
PROMPT = [
    Message("user", "Switch the light on again and again."),
    *(
        message
        for one in ON
        for message in (Message("assistant", "", calls=(one,)), Message("tool", "done", call=one))
    ),
]


def with_template(folder: Path) -> Path:
    """Return a copy of the demo model's file with TEMPLATE."""
    data = demo_file().read_bytes()
    begin = data.index(b"{% for message in messages %}")
    length = int.from_bytes(data[begin - 8 : begin], "little")
    template = TEMPLATE.encode().ljust(length)
    assert len(template) == length
    path = folder / "tools.gguf"
    path.write_bytes(data[:begin] + template + data[begin + length :])
    return path


@asynccontextmanager
async def opened(server: LocalServer) -> AsyncIterator[ContextWindowModel]:
    address = ModelServer(url=server.url, key=server.api_key, model="demo", own=True)
    async with connect(address) as connection:
        yield ContextWindowModel(
            model=ModelClient(connection, SETTINGS, idle_timeout=60.0),
            counter=TokenEstimator(),
            watch=None,
            prompt_tokens=900,
            answer_tokens=ANSWER,
        )


async def test_a_call_and_its_result_are_read_and_another_call_arrives(tmp_path: Path) -> None:
    async with (
        serve(SETTINGS, path=with_template(tmp_path), parallel=1) as server,
        opened(server) as model,
    ):
        assert await model.takes_tools()
        async with model.stream(PROMPT, tools=[SWITCH], deadline=math.inf) as answer:
            said = [answer.first, *[delta async for delta in answer.deltas]]
    (call,) = said

    assert isinstance(call, ToolCall)
    assert (call.name, json.loads(call.arguments)) == ("switch", {"light": "on"})


async def test_the_demo_model_is_offered_no_tools() -> None:
    async with serve(SETTINGS, path=None, parallel=1) as server, opened(server) as model:
        assert not await model.takes_tools()
