"""Several postings at once, in turn: a message never overtakes one of its sender that did not fit."""

from collections.abc import Callable, Sequence

from aimessage.stores.ledger import CONTROL
from aimessage.stores.ports import Posting, Receipt, Refusal
from aimessage.types import Username

__all__ = ["in_turn"]


def in_turn(postings: Sequence[Posting], put: Callable[[Posting], Receipt | Refusal]) -> list[Receipt | Refusal]:
    """Return what *put* answers to each posting; behind a `mailbox_full`, that for the sender's next messages there."""
    answers: list[Receipt | Refusal] = []
    full: dict[tuple[Username, Username], Refusal] = {}
    for posting in postings:
        held = full.get((posting.owner, posting.sender)) if full and posting.mail_class != CONTROL else None
        answer = held or put(posting)
        if type(answer) is Refusal and answer.code == "mailbox_full":
            full[posting.owner, posting.sender] = answer
        answers.append(answer)
    return answers
