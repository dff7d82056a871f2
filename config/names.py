"""Names that are no setting: mistakes, and what other programs read."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches

# The words of other bots' and guides' variables; the first that fits tells the name here.
_WORDS = (
    (r"SEARX", "SEARCH_URL"),
    (r"BRAVE|TAVILY|SEARCH.*KEY", "SEARCH_KEY"),
    (r"\bMCP\b|\bTOOLS?\b", "MCP_SERVERS"),
    (r"MAX NEW TOKENS", "MAX_TOKENS"),
    (r"^DO SAMPLE", "TEMPERATURE"),
    (r"^TOP K|REPETITION PENALTY", "TOP_P"),
    (r"SLACK\b(?!.*APP).*TOKEN", "SLACK_BOT_TOKEN"),
    (r"^(HF|HUGGING).*(TOKEN|KEY)", "HF_TOKEN"),
    (r"API ?KEY|GPT.*KEY|OPENAI.*TOKEN", "MODEL_API_KEY"),
    (r"REDIS|VALKEY", "REDIS_URL"),
    (r"\b(DISCORD|BOT|CLIENT)\b.*TOKEN|^TOKEN$", "DISCORD_TOKEN"),
    (r"SYSTEM|PROMPT|PERSONA|INSTRUCTION", "SYSTEM_PROMPT"),
    (r"\bBASE\b|ENDPOINT|(OPENAI|OLLAMA|LLM).*(URL|HOST)", "MODEL_URL"),
    (r"\bMODEL( NAME)?$", "MODEL_ID"),
    (r"LIMIT|DAILY|COOLDOWN|\bPER\b", "QUESTIONS_PER_DAY"),
    (r"ADMIN|OWNER|MODERATOR", "ADMINS"),
    (r"LEAVE", "LEAVE_OTHER_SERVERS"),
    (r"\bDMS?\b|DIRECT", "DIRECT_MESSAGES"),
    (r"MENTION", "FOLLOW_THREADS"),
    (r"CHANNEL", "ALLOWED_CHANNELS"),
    (r"ROLE", "ALLOWED_ROLES"),
    (r"BLOCK|BLACK|\bDEN[YI]|\bBAN|FORBID|IGNORE", "BLOCKED_PEOPLE"),
    (r"USER|MEMBER|PERSON|(WHITE|ALLOW) ?LIST$", "ALLOWED_PEOPLE"),
    (r"GUILD|SERVER|WORKSPACE|TEAM", "ALLOWED_SERVERS"),
)
# Names that others read, and that may stand in .env.
OF_OTHERS = re.compile(
    r"""
      # No word of a setting that limits access: that is a mistake, whatever stands before it.
      (?! .*(ALLOW|BLOCK|ADMIN|DENY|DENIED) )
      (
      (COMPOSE|DOCKER|UV|PIP|OTEL)_\w+ | P?[UG]ID | UMASK | TERM | TMPDIR | NO_COLOR | PYTHON\w*
    | LC_\w+ | LANG | TZ
    | (HTTPS?|ALL|NO)_PROXY | SSL_CERT_(FILE|DIR) | (REQUESTS|CURL)_CA_BUNDLE
    | (CUDA|NVIDIA|HIP|GGML|OMP|TORCH|PYTORCH|TOKENIZERS)_\w+
    | HF_(HOME|ENDPOINT|DEBUG|(HUB|XET)_(?!TOKEN)\w+) | TRANSFORMERS_(CACHE|OFFLINE|VERBOSITY)
    # What an image and its runtime set.
    | KUBERNETES_(PORT|SERVICE)\w*
    | PATH | HOME | HOSTNAME | PWD | OLDPWD | SHLVL | _ | GPG_KEY | container
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
# What makes a name in the environment, which has those of all programs, one that is meant for this
# bot; see `_is_ours`. Words stand without their S.
_LIMITING = {
    *("ALLOW", "ALLOWED", "ALLOWLIST", "PERMIT", "PERMITTED", "AUTHORIZED", "TRUSTED", "ONLY"),
    *("RESTRICT", "RESTRICTED", "WHITE", "WHITELIST", "WHITELISTED", "LEAVE", "PER"),
    *("BLACK", "BLACKLIST", "BLACKLISTED", "BLOCK", "BLOCKED", "BLOCKLIST"),
    *("DENY", "DENIED", "DENYLIST", "BAN", "BANNED", "IGNORE", "IGNORED", "AUTHORISED"),
}
_RULERS = {"ADMIN", "OWNER", "MODERATOR"}
_WHOM = _RULERS | {
    *("SERVER", "WORKSPACE", "TEAM", "CHANNEL", "PEOPLE", "PERSON", "USER", "USERID", "MEMBER"),
    *("ROLE", "DAY", "MONTH"),
}
_FILLING = {"LIST", "ALL", "TO", "ID", "BOT", "DISCORD", "SLACK"}
_ALONE = (
    *("SERVERS", "CHANNELS", "SERVER ID", "CHANNEL ID", "ROLE ID", "RATE LIMIT", "DAILY LIMIT"),
    *("USER LIMIT", "QUOTA", "QUESTIONS"),
)
# How alike a misspelt name and a known one are (difflib's ratio).
NEAR, _VERY_NEAR = 0.8, 0.91


def misspelt(
    name: str, where: str, known: Collection[str], *, is_strict: bool = True
) -> str | None:
    """Return why a name is refused; unless `is_strict`, names of other programs are let through."""
    if name in known or OF_OTHERS.fullmatch(name):
        return None
    written = name.upper()
    words = " ".join(re.findall("ALLOWED|[A-Z]+", written))
    very_near = get_close_matches(written, known, n=1, cutoff=_VERY_NEAR)
    if not is_strict and not very_near and not _is_ours(words, known):
        return None
    meant = [right for word, right in _WORDS if re.search(word, words)]
    near = very_near or meant or get_close_matches(written, known, n=1, cutoff=NEAR)
    cure = f"did you mean {near[0]}?" if near else "docs/settings.md has a table of them all"
    return f"{name} in {where} is unknown; {cure}"


def _is_ours(name: str, known: Collection[str]) -> bool:
    """Return whether a name, its words with blanks between, is most likely meant for this bot."""
    words = {word.removesuffix("S") for word in name.split()}
    if words & _LIMITING and (words & _WHOM or words <= _LIMITING | _FILLING):
        return True
    if words & {"WEBHOOK", "SERVICE", "PORT"}:  # of a notifier, or of a container beside this one
        return False
    if words & _RULERS and words <= _RULERS | {"BOT", "USER", "ROLE", "ID"}:
        return True
    if name.startswith(("WEB ", "MODEL")):
        return bool(get_close_matches(name.replace(" ", "_"), known, cutoff=NEAR))
    is_of_platform = name.startswith(("DISCORD ", "SLACK ")) or words & {"GUILD", "DM"}
    return bool(is_of_platform) or "DIRECT MESSAGE" in name or name.replace("IDS", "ID") in _ALONE
