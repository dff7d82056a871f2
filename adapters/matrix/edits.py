"""When a growing page may be edited, because a server keeps every edit for ever.

In the field, clients could not open a room with a thousand edits of one message any more. So a page
has twelve for one answer, and its end is always among them.
"""

from __future__ import annotations

from bot.domain import EditBudget, Page

MOST_EDITS = 12
PAUSE = 3600.0  # seconds until more may be tried: longer than an answer grows
# Seconds from each write of a growing page to the next one: at 2, 5, 10 and 20 s after the post,
# and then each 20 s.
_GAPS = (2.0, 3.0, 5.0, 10.0, 20.0)


def is_free(page: Page) -> bool:
    """Whether a page is written whenever it comes: its end, or what a person is asked."""
    return page.final or bool(page.consent)


def budget_of(page: Page, *, turn_id: str, writes: int, account: EditBudget) -> EditBudget:
    """Return the budget of a page's next write, after so many, within that of the account.

    A growing page has a bucket of its own, of one write in as many seconds as follow this write. It
    is in the store, so that a process goes on with the plan of one that has died.
    """
    if is_free(page):
        return account
    gap = _GAPS[min(writes, len(_GAPS) - 1)]
    return EditBudget(bucket_of(page, turn_id), 1, gap, within=account)


def bucket_of(page: Page, turn_id: str) -> str:
    """Return the name of a page's own bucket."""
    return f"{turn_id}/page/{page.number}"
