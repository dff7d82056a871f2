"""The tree of errors, each with the sentence that a person sees.

ParleyError
├── CannotStart             a setting or credential that the world refuses
│   └── Unreachable         a platform does not answer; a later try may find it
├── StoreUnavailable        Redis cannot be reached, or refuses to write
├── LeaseLost               another worker has this turn
├── Refused                 what a person asked for and does not get
│   ├── NothingAsked        there is no question
│   ├── ThreadBusy          too many turns wait in this thread
│   ├── PersonBusy          too many turns of this person wait
│   ├── QueueFull           too many turns wait in all
│   ├── NotTheAsker         the question is somebody else's
│   ├── NotTheLast          other answers follow this one
│   ├── NotRemembered       the answer is forgotten
│   └── HasEnded            there is nothing to stop any more
├── ModelError              no answer, or half of one
│   ├── ModelDenied         401, 403: the credentials or the licence
│   ├── ModelUnpaid         402: the quota is used up
│   ├── ModelUnknown        404, and the router's "not supported"
│   ├── ModelElsewhere      a redirect, a web page, a certificate: it is no model's address
│   ├── ModelBusy           429: asked too often
│   ├── ModelLoading        503: not ready yet
│   ├── ModelUnavailable    refused, reset, 5xx, cut off
│   ├── ModelSilent         no delta, or no end, in time
│   ├── PromptTooLong       the context is smaller than the prompt
│   ├── PromptRefused       another 4xx: the server does not take this request
│   │   ├── UsageRefused    it does not count tokens when asked to
│   │   └── SystemRefused   the model's template knows no system prompt
│   ├── EmptyAnswer         a stream without a word
│   ├── AnswerCut           no failure: the answer reached the longest allowed
│   └── GivenUp             every try at the turn failed
└── SurfaceError            a write that the platform did not take
    ├── WriteDelayed        429: the same write may come through later
    ├── WriteFailed         passing: time-out, 5xx, connection lost
    ├── WriteRefused        this message takes no such write any more; a new one may
    ├── MessageGone         a person deleted the message
    └── PlaceGone           nothing more of ours can be written here
"""

from __future__ import annotations


class ParleyError(Exception):
    """Anything that Parley itself reports; `apology` is fit for any reader."""

    apology = "Something went wrong on my side. Please ask again."


class CannotStart(ParleyError):
    """The process cannot run as configured; `str` names the variable or permission to mend."""


class Unreachable(CannotStart):
    """A platform cannot be reached now; another try may find it."""


class StoreUnavailable(ParleyError):
    """The store cannot be reached or refuses to write; `str` says what an operator can do."""

    apology = "I cannot take questions at the moment. Please try again in a minute."


class LeaseLost(ParleyError):
    """Another worker has the turn: whoever gets this stops writing about it."""


class Refused(ParleyError):
    """A request of a person that is not accepted; nothing of it is stored.

    `repeated` is true if the same person has just read this apology in the same channel. It is not
    posted again: a flood of apologies would use up the edit budget that others wait for.
    """

    repeated = False


class NothingAsked(Refused):
    """The question is empty."""

    apology = "Ask me something."


class ThreadBusy(Refused):
    """Too many turns already wait in this thread."""

    apology = "I am still answering in this thread. Please ask again when I am done."


class PersonBusy(Refused):
    """Too many turns of this person already wait."""

    apology = "I am still working on your other questions. Please ask again when they are answered."


class QueueFull(Refused):
    """Too many turns wait in all."""

    apology = "Too many people are asking me at once. Please try again in a few minutes."


class NotTheAsker(Refused):
    """Somebody else asked the question."""

    apology = "Only the person who asked can have the answer written anew."


class NotTheLast(Refused):
    """Other answers follow in the thread, and may build on this one."""

    apology = "Only the last answer can be written anew."


class NotRemembered(Refused):
    """The question was deleted, or it is too long ago."""

    apology = "I do not remember this any more. Please ask again."


class HasEnded(Refused):
    """Nobody works on the answer any more."""

    apology = "This answer has ended already."


class ModelError(ParleyError):
    """The model gave no answer or only half of one.

    `status` is the HTTP status where there was one; `retry_after` is what the server asked for, in
    seconds. `str` is for the operator's log: it names the cure and holds no secret and no prompt.
    """

    apology = "The language model had a problem. Please ask again."

    def __init__(
        self, detail: str, *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after = retry_after


class ModelDenied(ModelError):
    """HTTP 401 or 403: the credentials are missing or wrong, or the licence was not accepted."""

    apology = "I am not allowed to use my language model. Whoever runs me needs to look at this."


class ModelUnpaid(ModelError):
    """HTTP 402: the account's quota is used up."""

    apology = "My allowance at the language model is used up. Whoever runs me can renew it."


class ModelUnknown(ModelError):
    """HTTP 404, or a router that knows no provider of the model.

    `offered` is the model that the server says it has instead, where it does.
    """

    offered: str | None = None
    apology = "My language model cannot be found. Whoever runs me needs to choose another."


class ModelElsewhere(ModelError):
    """No model server is asked: a redirect, a web page, no trusted certificate, HF_HUB_OFFLINE."""

    apology = "My language model is not where I look for it. Whoever runs me needs to look at this."


class ModelBusy(ModelError):
    """HTTP 429: asked too often; see `retry_after`."""

    apology = "The language model is very busy. Please ask again in a minute."


class ModelLoading(ModelError):
    """HTTP 503: the model is not ready yet; see `retry_after`."""

    apology = "The language model is still starting. Please ask again in a minute."


class ModelUnavailable(ModelError):
    """The server refused, broke off or answered 5xx.

    `wordless` says that it failed over a request without any word of why.
    """

    wordless = False
    apology = "I cannot reach the language model. Please ask again in a moment."


class ModelSilent(ModelError):
    """No delta, or no end of the answer, came in time."""

    apology = "The language model took too long. Please ask again, perhaps in fewer words."


class PromptTooLong(ModelError):
    """The prompt does not fit the model's context.

    `context`, `used` (the prompt's) and `reserved` (for the answer) are tokens, where the server
    told them.
    """

    apology = "That is more than I can read at once. Please ask with less text."
    context: int | None = None
    used: int | None = None
    reserved: int | None = None

    def room(self, *, answer: int) -> int | None:
        """Return the tokens that a prompt may have beside such an answer; None: nobody knows."""
        if self.context is None:
            return None
        if self.reserved is not None:
            return self.context - self.reserved
        # Who asks for a longer answer than the whole context gets a shorter one.
        return max(self.context - answer, self.context // 4)


class PromptRefused(ModelError):
    """Another HTTP 4xx: the server does not take this request."""

    apology = "The language model does not accept this question. Please put it another way."


class UsageRefused(PromptRefused):
    """The server does not know `stream_options`, by which it is asked to count tokens."""


class SystemRefused(PromptRefused):
    """The model's template knows no system prompt; the same words may stand in the question."""


class EmptyAnswer(ModelError):
    """The stream ended without a word."""

    apology = "The language model had nothing to say. Please put the question another way."


class AnswerCut(ModelError):
    """The answer reached the longest allowed; what came is good as far as it goes."""

    apology = "(This is as long as my answers get. Ask me to go on.)"


class GivenUp(ModelError):
    """Every try at the turn failed, so no further one is made."""

    apology = "I tried several times and could not answer this. Please ask again later."


class SurfaceError(ParleyError):
    """The platform did not accept a write; `str` is for the operator's log."""

    retry_after = 0.0  # seconds


class WriteDelayed(SurfaceError):
    """The platform asks to wait `retry_after` seconds before the next write into `bucket`.

    None is the bucket that the write was granted by; one write may need several of them.
    """

    def __init__(self, detail: str, *, retry_after: float, bucket: str | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.bucket = bucket


class WriteFailed(SurfaceError):
    """A passing failure; the write may or may not have been applied."""


class WriteRefused(SurfaceError):
    """This message takes no such write any more (too old, too long, expired); a new one may."""

    apology = "I cannot show the rest of my answer here. Please put the question another way."


class MessageGone(SurfaceError):
    """A person deleted the message."""


class PlaceGone(SurfaceError):
    """Nothing more of ours can be written here: deleted, locked, or no permission.

    `str` names the permission or scope to mend, where one would help. The apology is for what
    stands there already and can still be edited.
    """

    apology = "I cannot show the rest of my answer here. Please ask me somewhere else."
