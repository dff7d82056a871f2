"""A transformers model: its plan, its weights, and the answers that it generates.

Written for transformers 5.23 and torch 2.13, which only the model's own process imports.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
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
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    TextStreamer,
)

from bot.domain import Message
from bot.errors import CannotStart, PromptRefused, PromptTooLong
from bot.local import hardware
from bot.local.hub import explain_denied_access
from bot.text.prompt import without_system

VARIABLE = "TRANSFORMERS_MODEL"
_GIB = 2**30
# For activations and the caches of answers, as a share of the weights.
_HEADROOM = 1.15
# Blenderbot's conversations have two spaces between messages, and one before a person's
# (transformers 4.41, BlenderbotTokenizer.default_chat_template, which 5 has dropped).
_BETWEEN, _BEFORE_USER = "  ", " "

# Without it transformers would ask at the terminal whether to run a model's own code.
_SAFELY = {"trust_remote_code": False}
_LOAD_ERRORS = (
    *(OSError, ValueError, RuntimeError, MemoryError, ImportError),
    *(SafetensorError, UnpicklingError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The properties of a model before its weights are read: limits in tokens, device, size."""

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
        """Whether it is an encoder-decoder, which does not follow instructions."""
        return bool(self.config.is_encoder_decoder)

    def __str__(self) -> str:
        size = self.parameters * self.dtype.itemsize / _GIB
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"{self.name} runs on {self.device} in {dtype}:"
            f" {self.parameters / 1e6:,.1f} million parameters, {size:.2f} GiB"
        )

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a prompt. Raises PromptTooLong or PromptRefused."""
        with self.lock:
            ids = self._encode(messages)
        if len(ids) > self.prompt_tokens:
            raise PromptTooLong(f"{len(ids)} tokens, {self.prompt_tokens} fit")
        return ids

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        if not self.tokenizer.chat_template:
            texts = ((_BEFORE_USER if each.role == "user" else "") + each.text for each in messages)
            ids: list[int] = self.tokenizer(_BETWEEN.join(texts))["input_ids"]
            return ids
        try:
            return self._apply_template(messages)
        except TemplateError:
            # The templates of Gemma and of older Mistrals have no system prompt.
            folded = without_system(messages)
        try:
            return self._apply_template(folded)
        except TemplateError as error:
            raise PromptRefused("the model's chat template rejects it") from error

    def _apply_template(self, messages: Sequence[Message]) -> list[int]:
        encoded = self.tokenizer.apply_chat_template(
            [{"role": each.role, "content": each.text} for each in messages],
            add_generation_prompt=True,
            return_dict=True,
            # Only Qwen's templates have this variable. Without it the model thinks for minutes,
            # and its thoughts are not part of an answer.
            enable_thinking=False,
        )
        ids: list[int] = encoded["input_ids"]
        return ids


def make_plan(*, name: str, token: str | None, context_tokens: int, max_tokens: int) -> Plan:
    """Examine a model without its weights. Raises CannotStart if it cannot be run."""
    config = _config(name, token)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, token=token, **_SAFELY)
    except (OSError, ValueError, ImportError) as error:
        raise _cannot_run(name, error) from error
    if not (tokenizer.chat_template or config.is_encoder_decoder):
        raise CannotStart(
            f"{VARIABLE}={name} has no chat template, so it continues texts and cannot answer:"
            " choose its variant for chats, mostly named Instruct or Chat"
        )
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    # A huge number if it is unlimited.
    limit = int(min(positions or math.inf, tokenizer.model_max_length))
    prompt_tokens, answer_tokens = min(limit, context_tokens) - max_tokens, max_tokens
    if config.is_encoder_decoder:
        # Encoder and decoder have separate positions, and the decoder's first one is taken.
        prompt_tokens = min(limit, context_tokens - max_tokens)
        answer_tokens = min(limit - 1, max_tokens)
    if min(prompt_tokens, answer_tokens) <= 0:
        raise CannotStart(
            f"MAX_TOKENS={max_tokens} leaves no room for a question in the {limit} tokens of {name}"
        )
    parameters = _count_parameters(name, config)
    device, dtype = _choose_device(name, config, parameters)
    return Plan(
        name=name,
        token=token,
        config=config,
        tokenizer=tokenizer,
        prompt_tokens=prompt_tokens,
        max_tokens=answer_tokens,
        device=device,
        dtype=dtype,
        parameters=parameters,
        lock=threading.Lock(),
    )


def _config(name: str, token: str | None) -> Any:
    try:
        with explain_denied_access(f"{VARIABLE}={name}", name):
            if not Path(name).is_absolute():
                # transformers raises the same OSError for every failure here.
                hf_hub_download(name, "config.json", token=token)
            return AutoConfig.from_pretrained(name, token=token, **_SAFELY)
    except hub.HFValidationError as error:
        raise CannotStart(
            f"{VARIABLE}={name} is neither a folder nor a name at Hugging Face"
        ) from error
    except hub.LocalEntryNotFoundError as error:
        raise CannotStart(
            f"{VARIABLE}={name} is not on this machine, and Hugging Face cannot be reached"
        ) from error
    except (hub.EntryNotFoundError, OSError, ValueError) as error:
        raise _cannot_run(name, error) from error


def _cannot_run(name: str, error: Exception) -> CannotStart:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")
    return CannotStart(
        f"{VARIABLE}={name} cannot be run by transformers {transformers.__version__}: {reason}"
    )


def _count_parameters(name: str, config: Any) -> int:
    try:
        with torch.device("meta"):  # without weights
            model = _model_class(config).from_config(config, **_SAFELY)
            return sum(each.numel() for each in model.parameters())
    except (ValueError, ImportError) as error:
        raise _cannot_run(name, error) from error


def _model_class(config: Any) -> Any:
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _choose_device(name: str, config: Any, parameters: int) -> tuple[str, Any]:
    """Return the device and the number format. Raises CannotStart without enough memory."""
    own = getattr(config.get_text_config(), "dtype", None) or torch.float32
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        if parameters * own.itemsize * _HEADROOM <= free:
            return "cuda", own
    elif torch.backends.mps.is_available():
        return "mps", own
    # CPUs are slow in float16, or do not support it; bfloat16 works.
    dtype = torch.float32 if own == torch.float16 else own
    required, total = parameters * dtype.itemsize, hardware.total_memory()
    if total and required > total:
        raise CannotStart(
            f"{VARIABLE}={name} needs {required / _GIB:.1f} GiB of memory and this machine has"
            f" {total / _GIB:.1f} GiB: choose a smaller model,"
            " or a GGUF file of it (LOCAL_MODEL_PATH)"
        )
    return "cpu", dtype


class TorchModel:
    """A model with its weights; several threads may generate at once."""

    def __init__(self, plan: Plan, weights: Any) -> None:
        self._plan = plan
        self._weights = weights

    @classmethod
    def load(cls, plan: Plan) -> TorchModel:
        """Read the weights, after downloading them if needed. Raises CannotStart."""
        try:
            weights = _model_class(plan.config).from_pretrained(
                plan.name, config=plan.config, token=plan.token, dtype=plan.dtype, **_SAFELY
            )
            weights = weights.to(plan.device).eval()
        except _LOAD_ERRORS as error:
            raise _cannot_run(plan.name, error) from error
        # `generate` replaces None by the model's own setting, so these are changed in the model.
        # Beams cannot be streamed, and Blenderbot has ten. A forced end would make a cut
        # answer look complete.
        weights.generation_config.update(num_beams=1, forced_eos_token_id=None, max_length=None)
        if weights.generation_config.pad_token_id is None:
            weights.generation_config.pad_token_id = plan.tokenizer.eos_token_id
        return cls(plan, weights)

    def generate(
        self,
        prompt: Sequence[int],
        answer: AnswerStreamer,
        *,
        temperature: float | None,
        top_p: float | None,
    ) -> str:
        """Generate an answer; returns why it ended: "stop", "length", or "" if it was canceled."""
        ids = torch.tensor([prompt], device=self._plan.device)
        chosen = {"temperature": temperature, "top_p": top_p}
        settings: dict[str, object] = {k: value for k, value in chosen.items() if value is not None}
        if settings:
            settings["do_sample"] = True
        if temperature == 0:
            settings = {"do_sample": False}
        try:
            self._weights.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=answer.limit,
                streamer=answer,
                **settings,
            )
        except _Canceled:
            return ""
        ends = self._weights.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return "stop" if answer.tokens and answer.tokens[-1] in ends else "length"


class _Canceled(Exception):
    """The answer was canceled; an exception is the only quick way out of `generate`."""


class AnswerStreamer(TextStreamer):  # type: ignore[misc]
    """Passes the text of an answer to `on_text` while `generate` adds `tokens` to it."""

    def __init__(self, plan: Plan, *, limit: int, on_text: Callable[[str], None]) -> None:
        super().__init__(
            plan.tokenizer,
            skip_prompt=True,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        self.limit = min(limit, plan.max_tokens)
        self.tokens: list[int] = []
        self._lock = plan.lock
        self._on_text = on_text
        self._has_begun = False
        self._is_canceled = False

    def cancel(self) -> None:
        """End the generation after the current token."""
        self._is_canceled = True

    def put(self, value: Any) -> None:
        """Take tokens; the first call contains the prompt."""
        if self._is_canceled:
            raise _Canceled
        if not self.next_tokens_are_prompt:
            self.tokens += value.flatten().tolist()
        with self._lock:
            super().put(value)

    def end(self) -> None:
        """Pass on the remaining text, such as half a character at the limit."""
        with self._lock:
            super().end()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Pass on a text; the answers of dialogue models begin with a space."""
        text = text if self._has_begun else text.lstrip()
        if text:
            self._has_begun = True
            self._on_text(text)
