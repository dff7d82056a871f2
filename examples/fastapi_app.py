"""Answers over HTTP by FastAPI: `python -m uvicorn examples.fastapi_app:app`.

Start it in the project's folder, where `.env` names the model, and ask:
curl --json '{"text": "Why is the sky blue?"}' http://127.0.0.1:8000/ask
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import bot
from bot.errors import ParleyError


class Question(BaseModel):
    """A question, with the questions and answers before it."""

    text: str
    history: list[tuple[str, str]] = []


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep one model open for all requests."""
    async with bot.asking() as app.state.ask:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/ask")
async def ask(question: Question) -> dict[str, str]:
    """Return the answer, or 503 with a sentence for people."""
    try:
        return {"answer": await app.state.ask(question.text, history=question.history)}
    except ParleyError as error:
        raise HTTPException(503, error.apology) from error
