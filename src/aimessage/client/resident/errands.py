"""What a command asks of a resident agent, and what it is told: both ways between values and the words of the door."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from aimessage.client.letter import Letter
from aimessage.errors import AimessageError, error_from_code
from aimessage.types import MessageId

__all__ = ["failed", "letter_of", "message_id_of", "refused_error"]

_ID_BYTES = 16


def letter_of(words: Mapping[str, bytes], text: str) -> Letter:
    """Return the letter that a command wants sent. Raises ValueError: these are not a command's words."""
    thread, reply_to, key = (
        words[name].decode() if name in words else None for name in ("thread", "reply_to", "idempotency_key")
    )
    return Letter(text, None, thread, reply_to, idempotency_key=key, hops=int(words["hops"]))


def message_id_of(words: Mapping[str, bytes]) -> MessageId:
    """Return the id that the command has drawn. Raises ValueError: it is none."""
    if len(words["id"]) != _ID_BYTES:
        raise ValueError("not a message's id")
    return MessageId(words["id"])


def failed(error: AimessageError, notices: Sequence[str]) -> dict[str, bytes]:
    """Return how a command is told what its message, which is saved, came to."""
    told = {"said": "failed", "code": error.code, "message": error.message}
    told |= {"hint": error.hint} if error.hint is not None else {}
    told |= {"message_id": error.message_id} if error.message_id is not None else {}
    if error.retry_after is not None:
        told["retry_after_ms"] = str(error.retry_after // timedelta(milliseconds=1))
    return {name: value.encode() for name, value in told.items()} | {"notices": "\n".join(notices).encode()}


def refused_error(words: Mapping[str, bytes]) -> AimessageError:
    """Return the error that `failed` told of."""
    told = {name: value.decode() for name, value in words.items()}
    after = timedelta(milliseconds=int(told["retry_after_ms"])) if "retry_after_ms" in told else None
    error = error_from_code(told["code"], told["message"], retry_after=after)
    error.hint = told.get("hint")
    error.message_id = told.get("message_id")
    return error
