"""A model in the process that computes it: what it needs, its weights, and the answers it writes.

Written against transformers 5.23 and torch 2.13, which only that process imports.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from huggingface_hub import errors as hub
from huggingface_hub import hf_hub_download
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from bot.domain import Message
from bot.errors import CannotStart, PromptRefused, PromptTooLong
from bot.local import hardware
from bot.model.fit import without_system

VARIABLE = "TRANSFORMERS_MODEL"
_GIB = 2**30
# Weights are not all: activations and the answers' caches come on top.
_HEADROOM = 1.15
# How Blenderbot reads a conversation: two spaces between messages, and one before a person's
# (transformers 4.41, BlenderbotTokenizer.default_chat_template, which 5 has no more).
_BETWEEN, _BEFORE_USER = "  ", " "

# Not asked for it, transformers would ask somebody at a terminal whether to run a model's own code.
_SAFELY = {"trust_remote_code": False}
_UNREADABLE = (
    *(OSError, ValueError, RuntimeError, MemoryError, ImportError),
    *(SafetensorError, UnpicklingError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is known of a model before its weights are read: room in tokens, place and size."""

    name: str
    token: str | None
    config: Any
    tokenizer: Any
    prompt_tokens: int
    max_tokens: int
    device: str
    dtype: Any
    parameters: int
    lock: threading.Lock  # a tokenizer serves one thread at a time (tokenizers 0.23)

    @property
    def is_dialogue(self) -> bool:
        """Whether it is an encoder-decoder: it goes on a conversation and takes no orders."""
        return bool(self.config.is_encoder_decoder)

    def __str__(self) -> str:
        size = self.parameters * self.dtype.itemsize / _GIB
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"{self.name} runs on {self.device} in {dtype}:"
            f" {self.parameters / 1e6:,.1f} million parameters, {size:.2f} GiB"
        )

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """Return a prompt's tokens; raise PromptTooLong or PromptRefused."""
        with self.lock:
            ids = self._tokens(messages)
        if len(ids) > self.prompt_tokens:
            raise PromptTooLong(f"{len(ids)} tokens, {self.prompt_tokens} fit")
        return ids

    def _tokens(self, messages: Sequence[Message]) -> list[int]:
        if not self.tokenizer.chat_template:
            return _ids(self.tokenizer(_dialogue(messages)))
        try:
            return self._rendered(messages)
        except TemplateError:
            # Gemma's and older Mistrals' templates know no system prompt.
            folded = without_system(messages)
        try:
            return self._rendered(folded)
        except TemplateError as error:
            raise PromptRefused("the model's chat template does not take it") from error

    def _rendered(self, messages: Sequence[Message]) -> list[int]:
        return _ids(
            self.tokenizer.apply_chat_template(
                [{"role": each.role, "content": each.text} for each in messages],
                add_generation_prompt=True,
                return_dict=True,
                # Qwen's templates heed it, the others have no such variable: without it the model
                # thinks aloud for minutes, and its thoughts are no part of an answer.
                enable_thinking=False,
            )
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Return the words of some tokens."""
        with self.lock:
            text: str = self.tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        return text


def _ids(encoded: Mapping[str, Any]) -> list[int]:
    ids: list[int] = encoded["input_ids"]
    return ids


def _dialogue(messages: Sequence[Message]) -> str:
    texts = ((_BEFORE_USER if each.role == "user" else "") + each.text for each in messages)
    return _BETWEEN.join(texts)


def plan(*, name: str, token: str | None, context_tokens: int, max_tokens: int) -> Plan:
    """Look at all of a model but its weights. CannotStart says what keeps it from being run."""
    config = _config(name, token)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, token=token, **_SAFELY)
    except (OSError, ValueError, ImportError) as error:
        raise _unfit(name, error) from error
    if not (tokenizer.chat_template or config.is_encoder_decoder):
        raise CannotStart(
            f"{VARIABLE}={name} has no chat template, so it continues texts and answers nobody:"
            " choose its sibling for chats, mostly named Instruct or Chat"
        )
    room = _room(config, tokenizer, context_tokens=context_tokens, max_tokens=max_tokens)
    if min(room) <= 0:
        raise CannotStart(
            f"MAX_TOKENS={max_tokens} leaves no room for a question in the"
            f" {_limit(config, tokenizer)} tokens of {name}"
        )
    parameters = _parameters(name, config)
    device, dtype = _place(name, config, parameters)
    return Plan(
        name=name,
        token=token,
        config=config,
        tokenizer=tokenizer,
        prompt_tokens=room[0],
        max_tokens=room[1],
        device=device,
        dtype=dtype,
        parameters=parameters,
        lock=threading.Lock(),
    )


def _config(name: str, token: str | None) -> Any:
    try:
        if not Path(name).is_absolute():
            # transformers makes one OSError of all that can be wrong here.
            hf_hub_download(name, "config.json", token=token)
        return AutoConfig.from_pretrained(name, token=token, **_SAFELY)
    except hub.GatedRepoError as error:
        raise CannotStart(
            f"{VARIABLE}={name} is gated: accept its licence at https://huggingface.co/{name}"
            " and set HF_TOKEN to a token of that account"
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise CannotStart(
            f"{VARIABLE}={name} is not at Hugging Face, or HF_TOKEN may not see it"
        ) from error
    except hub.HFValidationError as error:
        raise CannotStart(f"{VARIABLE}={name} is neither a folder nor a name there") from error
    except hub.LocalEntryNotFoundError as error:
        raise CannotStart(
            f"{VARIABLE}={name} is not on this machine, and Hugging Face cannot be reached"
        ) from error
    except (hub.EntryNotFoundError, OSError, ValueError) as error:
        raise _unfit(name, error) from error


def _unfit(name: str, error: Exception) -> CannotStart:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")
    return CannotStart(
        f"{VARIABLE}={name} cannot be run by transformers {transformers.__version__}: {reason}"
    )


def _limit(config: Any, tokenizer: Any) -> int:
    """Return how many tokens the model has positions for; a huge number where it has no end."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None) or tokenizer.model_max_length
    return int(min(positions, tokenizer.model_max_length))


def _room(config: Any, tokenizer: Any, *, context_tokens: int, max_tokens: int) -> tuple[int, int]:
    """Return how many tokens a prompt and an answer may have."""
    limit = _limit(config, tokenizer)
    if config.is_encoder_decoder:
        # Each half has positions of its own, and the answer's first is the start.
        return min(limit, context_tokens - max_tokens), min(limit - 1, max_tokens)
    return min(limit, context_tokens) - max_tokens, max_tokens


def _parameters(name: str, config: Any) -> int:
    """Count a model's parameters without its weights."""
    kind = _kind(config)
    try:
        with torch.device("meta"):
            return sum(each.numel() for each in kind.from_config(config, **_SAFELY).parameters())
    except (ValueError, ImportError) as error:
        raise _unfit(name, error) from error


def _kind(config: Any) -> Any:
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _place(name: str, config: Any, parameters: int) -> tuple[str, Any]:
    """Choose where to compute and in which numbers. CannotStart where there is no room for it."""
    own = getattr(config.get_text_config(), "dtype", None) or torch.float32
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        if parameters * own.itemsize * _HEADROOM <= free:
            return "cuda", own
    elif torch.backends.mps.is_available():
        return "mps", own
    # Half precision is slow on CPUs, where it is there at all; bfloat16 is not.
    dtype = torch.float32 if own == torch.float16 else own
    need, free = parameters * dtype.itemsize * _HEADROOM, hardware.free_memory()
    if free is not None and need > free:
        raise CannotStart(
            f"{VARIABLE}={name} needs {need / _GIB:.1f} GiB of memory and"
            f" {free / _GIB:.1f} GiB are free: choose a smaller one,"
            " or a GGUF file of it (LOCAL_MODEL_PATH)"
        )
    return "cpu", dtype


class TorchModel:
    """The weights, on their device; answers are written by `slots` threads at once."""

    def __init__(self, plan: Plan, weights: Any) -> None:
        self._plan = plan
        self._weights = weights

    @classmethod
    def load(cls, plan: Plan) -> TorchModel:
        """Read the weights, from the hub where they are not here yet. CannotStart if impossible."""
        try:
            weights = _kind(plan.config).from_pretrained(
                plan.name, config=plan.config, token=plan.token, dtype=plan.dtype, **_SAFELY
            )
            weights = weights.to(plan.device).eval()
        except _UNREADABLE as error:
            raise _unfit(plan.name, error) from error
        # None in a request means what the model is made for, so these are changed in the model
        # itself. A beam cannot be read while it grows, and Blenderbot's has ten; an answer that was
        # cut must not look as if it had ended, as Blenderbot's is made to.
        weights.generation_config.update(num_beams=1, forced_eos_token_id=None, max_length=None)
        return cls(plan, weights)

    def write(
        self,
        prompt: Sequence[int],
        answer: Answer,
        *,
        temperature: float | None,
        top_p: float | None,
    ) -> str:
        """Write an answer and return why it ended: "stop", "length", or "" when it was left."""
        ids = torch.tensor([prompt], device=self._plan.device)
        settings = copy.deepcopy(self._weights.generation_config)
        settings.update(**self._settings(answer.limit, temperature, top_p))
        try:
            self._weights.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=settings,
                streamer=answer,
            )
        except _Unwanted:
            return ""
        return "stop" if answer.last in _set(settings.eos_token_id) else "length"

    def _settings(
        self, limit: int, temperature: float | None, top_p: float | None
    ) -> dict[str, object]:
        settings: dict[str, object] = {"max_new_tokens": limit}
        if self._weights.generation_config.pad_token_id is None:
            settings["pad_token_id"] = self._plan.tokenizer.eos_token_id
        if temperature == 0:
            return settings | {"do_sample": False}
        chosen = {"temperature": temperature, "top_p": top_p}
        told = {name: value for name, value in chosen.items() if value is not None}
        return settings | told | ({"do_sample": True} if told else {})


def _set(ids: int | Sequence[int] | None) -> set[int]:
    if ids is None:
        return set()
    return {ids} if isinstance(ids, int) else set(ids)


class _Unwanted(Exception):
    """Whoever asked has hung up; raised into `generate`, which has no other way out at once."""


class Answer:
    """What `generate` hands each token to; `say` gets words as soon as they are whole.

    `written` counts the tokens. It does not inherit from the library's BaseStreamer, of which
    `generate` asks for these two methods alone.
    """

    def __init__(self, plan: Plan, *, limit: int, say: Callable[[str], None]) -> None:
        self.limit = min(limit, plan.max_tokens)
        self.written = 0
        self._plan = plan
        self._say = say
        self._ids: list[int] = []
        self._from = 0  # where the window of tokens begins that are decoded together
        self._said = 0  # how many tokens have been said
        self._begun = False
        self._wanted = True

    @property
    def last(self) -> int:
        """The token that was written last; -1 where there is none."""
        return self._ids[-1] if self._ids else -1

    def leave(self) -> None:
        """Have no further token written; the one under way is computed to its end."""
        self._wanted = False

    def put(self, value: Any) -> None:
        """Take a token; the first that comes is the prompt."""
        if not self._wanted:
            raise _Unwanted
        if not self._begun:
            self._begun = True
            return
        self._ids += value.flatten().tolist()
        self.written = len(self._ids)
        self._speak(final=False)

    def end(self) -> None:
        """Say what is left, such as half a letter at the limit."""
        self._speak(final=True)

    def _speak(self, *, final: bool) -> None:
        # Some tokens before the new ones decide about its first space; bytes of a letter may come
        # in several tokens.
        before = self._plan.decode(self._ids[self._from : self._said])
        text = self._plan.decode(self._ids[self._from :])
        if len(text) <= len(before) or (text.endswith("\ufffd") and not final):
            return
        # A dialogue model opens with a space, and its answer is not a continuation.
        words = text[len(before) :] if self._said else text[len(before) :].lstrip()
        self._from, self._said = self._said, len(self._ids)
        if words:
            self._say(words)
