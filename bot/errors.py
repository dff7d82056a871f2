"""The tree of errors, each with the sentence that a person sees.

ParleyError
├── CannotStart             a setting or credential does not work
│   └── Unreachable         a platform does not answer; a later attempt may succeed
├── StoreUnavailable        Redis cannot be reached or refuses to write
├── LeaseLost               another worker has the turn, or it has ended
├── QuestionEdited          the turn that is answered has another question now
├── Refused                 a request of a person is not accepted
│   ├── NothingAsked        the question is empty
│   ├── ThreadBusy          too many turns wait in this thread
│   ├── PersonBusy          too many turns of this person wait
│   ├── BeingForgotten      the person is being forgotten
│   ├── QueueFull           too many turns wait in total
│   ├── NotAllowed          the person may not use the bot, or not there
│   ├── QuotaUsed           a quota is used up; see `renews_in`
│   ├── NotTheAsker         another person has asked the question
│   ├── NotTheLast          other answers follow this one and may refer to it
│   ├── NotRemembered       the question was deleted, or its record has expired
│   └── HasEnded            the answer has ended: there is nothing to stop or to continue
├── ModelError              no answer, or an incomplete one
│   ├── ModelDenied         401, 403: wrong credentials, or the license was not accepted
│   ├── ModelUnpaid         402: the quota of the account is used up
│   ├── ModelUnknown        404, and the router's "not supported"
│   ├── ModelElsewhere      a redirect, a web page, a certificate, HF_HUB_OFFLINE: no server
│   ├── ModelBusy           429: too many requests; see `retry_after`
│   ├── ModelLoading        503: not ready yet; see `retry_after`
│   ├── ModelUnavailable    refused, reset, 5xx, cut off
│   ├── ModelSilent         no delta, or no end, before the timeout
│   ├── PromptTooLong       the context is smaller than the prompt
│   ├── PromptRefused       another 4xx: the server rejects this request
│   │   ├── UsageRefused    it does not support `stream_options`
│   │   ├── SystemRefused   the chat template has no system prompt
│   │   ├── PicturesRefused the model does not see, or not these pictures
│   │   └── ToolsRefused    the model takes no tools, or its server does not
│   ├── EmptyAnswer         a stream without text
│   ├── AnswerCut           no failure: the answer has the longest allowed length
│   └── GivenUp             all attempts at the turn failed
└── SurfaceError            the platform did not accept a write
    ├── WriteDelayed        429: the same write may succeed later
    │   └── NoSlot          the edit budget has no room before a deadline
    ├── WriteFailed         a transient failure: timeout, 5xx, connection lost
    ├── WriteRefused        too old, too long or expired for this write; a new message may do
    ├── MessageGone         a person deleted the message
    └── PlaceGone           the bot cannot write here any more
"""

from __future__ import annotations

from bot.languages import later, say


class _Apology:
    """A sentence that is read in the language of the task that reads it."""

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence

    def __get__(self, instance: object, owner: object) -> str:
        return say(self._sentence)


class ParleyError(Exception):
    """An error that Parley reports; `apology` is shown to people, in their language."""

    apology: str = _Apology("Something went wrong on my side. Please ask again.")  # type: ignore[assignment]

    def __init_subclass__(cls) -> None:
        if isinstance(sentence := vars(cls).get("apology"), str):
            cls.apology = _Apology(sentence)  # type: ignore[assignment]


class CannotStart(ParleyError):
    """The process cannot run as configured; `str` names the variable or permission to fix."""


class Unreachable(CannotStart):
    """A platform cannot be reached now; a later attempt may succeed."""


class StoreUnavailable(ParleyError):
    """The store cannot be reached or refuses to write; `str` tells an operator what to do."""

    apology = "I cannot take questions at the moment. Please try again in a minute."


class TooFewReplicas(StoreUnavailable):
    """The primary has done it and answered with `answer`, but may lose it: too few replicas.

    It is not taken back: another call with the same words may have been acknowledged.
    """

    apology = "I may lose this. If nothing comes of it within a minute, please try again."

    def __init__(self, has: int, needs: int, answer: object = None) -> None:
        super().__init__(
            f"{has} of REDIS_REPLICAS={needs} replicas have answered in time; the primary has "
            "stored what it was sent, and may lose it"
        )
        self.answer = answer


class LeaseLost(ParleyError):
    """Another worker has taken the turn, or the turn has ended. The holder must stop writing."""


class QuestionEdited(ParleyError):
    """The question of a running turn was edited: the turn is released and taken again."""


class Refused(ParleyError):
    """A request of a person that is not accepted; nothing of it is stored.

    `repeated` is true if the same person has just read this apology in the same channel. It is not
    posted again, because a flood of apologies would use up the shared edit budget.
    """

    repeated = False

    def __init__(self, apology: str = "") -> None:
        super().__init__(apology)
        self.apology = say(apology) or self.apology


class NothingAsked(Refused):
    apology = "Ask me something."


class ThreadBusy(Refused):
    apology = "I am still answering in this thread. Please ask again when I am done."


class PersonBusy(Refused):
    apology = "I am still working on your other questions. Please ask again when they are answered."


class BeingForgotten(Refused):
    apology = "I am still forgetting what you have said to me. Please ask again in a minute."


class QueueFull(Refused):
    apology = "Too many people are asking me at once. Please try again in a few minutes."


class NotAllowed(Refused):
    """Shown to a person once a day: `repeated` if it was shown, or no question was asked.

    `rule` is the setting that refuses, or "chosen" for what was chosen in the place.
    """

    def __init__(self, apology: str = "", *, rule: str = "") -> None:
        super().__init__(apology)
        self.rule = rule


class QuotaUsed(Refused):
    """`kind` is what is used up: a field of `Quota`, or "tools".

    `renews_in` is in seconds.
    """

    def __init__(self, kind: str, renews_in: float) -> None:
        super().__init__(kind)
        self.kind = kind
        self.renews_in = renews_in
        self.apology = say(
            "{used} You can ask me again after 00:00 UTC, {when}.",
            used=say(_USED_UP.get(kind, _USED_UP["tokens"])),
            when=until(renews_in),
        )


_USED_UP = {
    "questions": later("You have used all your questions for today."),
    "tokens": later("You have used all your tokens for today."),
    "server_tokens": later("Everybody here together has used all tokens for today."),
    "money": later("You have used all that I may spend on you this month."),
    "server_money": later("Everybody here together has used all that I may spend this month."),
    "tools": later("You have used all your calls of tools for today."),
}


def until(seconds: float) -> str:
    """Return a duration as people write it, such as "in 3 hours"."""
    minutes = max(round(seconds / 60), 1)
    number, unit = (round(minutes / 60), 1) if minutes > 90 else (minutes, 0)
    if number > 48 and unit:
        number, unit = round(number / 24), 2
    return say(_UNTIL[unit][number > 1], number=number)


_UNTIL = (
    (later("in {number} minute"), later("in {number} minutes")),
    (later("in {number} hour"), later("in {number} hours")),
    (later("in {number} day"), later("in {number} days")),
)


class NotTheAsker(Refused):
    apology = "Only the person who asked can do this."


class NotTheLast(Refused):
    apology = "Only my last answer can be written again or continued. Please ask a new question."


class NotRemembered(Refused):
    apology = "I no longer remember this. Please ask again."


class HasEnded(Refused):
    apology = "This answer has already ended."


class ModelError(ParleyError):
    """The model gave no answer, or an incomplete one.

    `status` is the HTTP status if there was one; `retry_after` is in seconds, as the
    server asked for. `str` is for the operator's log: it names the cure and has no secret and no
    prompt in it.
    """

    apology = "The language model had a problem. Please ask again."

    def __init__(
        self, detail: str, *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after = retry_after


class ModelDenied(ModelError):
    apology = "My model server does not accept my key. Please tell the person who runs me."


class ModelUnpaid(ModelError):
    apology = "The credit for my language model is used up. Please tell the person who runs me."


class ModelUnknown(ModelError):
    apology = "My language model cannot be found. Please tell the person who runs me."


class ModelElsewhere(ModelError):
    apology = "My model server has a wrong address. Please tell the person who runs me."


class ModelBusy(ModelError):
    apology = "The language model is very busy. Please ask again in a minute."


class ModelLoading(ModelError):
    apology = "The language model is still starting. Please ask again in a minute."


class ModelUnavailable(ModelError):
    apology = "I cannot reach the language model. Please ask again in a moment."


class ModelSilent(ModelError):
    apology = "The language model took too long. Please ask again, perhaps in fewer words."


class PromptTooLong(ModelError):
    apology = "That is too long for me to read at once. Please shorten it."
    context: int | None = None  # in tokens, if the server reports it

    def room(self, *, answer: int) -> int | None:
        """Return how many tokens a prompt may have beside this answer; None if unknown."""
        if self.context is None:
            return None
        # An answer that would fill the whole context is shortened.
        return max(self.context - answer, self.context // 4)


class PromptRefused(ModelError):
    apology = "The language model does not accept this question. Please ask in other words."


class UsageRefused(PromptRefused):
    """The server does not support `stream_options`, which ask it to count tokens."""


class SystemRefused(PromptRefused):
    """The chat template has no system prompt; its text can be put into the question."""


class PicturesRefused(PromptRefused):
    """The server does not accept the pictures of a prompt; it may accept the prompt without."""


class ToolsRefused(PromptRefused):
    """The server does not accept tools, or their results; it may accept the prompt without."""


class EmptyAnswer(ModelError):
    apology = "The language model gave no answer. Please ask in other words."


class AnswerCut(ModelError):
    apology = "(This is the longest answer I can give. Ask me to go on.)"


class GivenUp(ModelError):
    apology = "I tried several times and could not answer this. Please ask again later."


class SurfaceError(ParleyError):
    """The platform did not accept a write; `str` is for the operator's log."""

    retry_after = 0.0  # seconds


class WriteDelayed(SurfaceError):
    """The platform asks to wait `retry_after` seconds before the next write into `bucket`.

    None means the bucket that granted the write; one write may need several.
    """

    def __init__(self, detail: str, *, retry_after: float, bucket: str | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.bucket = bucket


class NoSlot(WriteDelayed):
    """No slot became free before a deadline. The platform has refused nothing."""


class WriteFailed(SurfaceError):
    """A transient failure; the write may or may not have been applied."""


class WriteRefused(SurfaceError):
    apology = "I cannot show the rest of my answer here. Please ask in other words."


class MessageGone(SurfaceError):
    """A person deleted the message."""


class PlaceGone(SurfaceError):
    """`str` names the missing permission or scope, if there is one.

    The apology is added to messages that can still be edited.
    """

    apology = "I cannot show the rest of my answer here. Please ask me somewhere else."
