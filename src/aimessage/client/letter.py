"""What one send says, apart from to whom, and what makes two sends the same."""

from datetime import timedelta

import msgspec

from aimessage.client.leaks import require_no_secret
from aimessage.crypto.kdf import hmac_sha256
from aimessage.e2ee.bodies import Body, Receipts, require_fits
from aimessage.e2ee.text import require_clean
from aimessage.errors import BadValue, EmptyMessage
from aimessage.octets import lp16
from aimessage.types import SecretBytes, Username, parse_message_id

__all__ = ["LIFE", "Letter", "Summary", "key_mac"]

LIFE = timedelta(days=30)
"""How long a message is tried, and its fate awaited, unless its sender says otherwise."""
_LIFE_MS = LIFE // timedelta(milliseconds=1)
_KEY_CHARACTERS = 256


class Summary(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What our history tells of a message whose body has been erased."""

    kind: str
    thread: str
    reply_to: bytes
    size_bytes: int
    hops: int = 0


class Letter(msgspec.Struct, frozen=True, gc=False):
    """*text* or *data*, not both; *receipts*: the fates that we ask the recipient to report.

    *contact* is what the recipient becomes by our writing to it: `accepted`, or `requested` until it writes to us.
    """

    text: str | None = None
    data: object = None
    thread: str | None = None
    reply_to: str | None = None
    ttl: timedelta | None = None
    expects_reply: bool = True
    receipts: Receipts = Receipts.DELIVERED
    idempotency_key: str | None = None
    hops: int = 0
    contact: str = "accepted"
    allow_secrets: bool = False

    def body(self, now_ms: int) -> Body:
        """Return the body; its vault and sequence are filled in when it first leaves.

        Raises EmptyMessage, TextNotAllowed, SecretFound, BadValue.
        """
        text, data, thread = self._sayable()
        return Body(
            kind="data" if data else "text",
            vault_id=b"",
            sequence=0,
            sent_at=now_ms,
            text=text,
            data=data,
            thread=thread,
            reply_to=parse_message_id(self.reply_to) if self.reply_to else b"",
            expires_at=now_ms + self.life_ms if self.ttl is not None else 0,
            expects_reply=self.expects_reply,
            hops=self.hops,
            receipts=int(self.receipts),
        )

    @property
    def life_ms(self) -> int:
        """How long the message lives, in milliseconds. Raises BadValue: less than that."""
        if self.ttl is None:
            return _LIFE_MS
        life = self.ttl // timedelta(milliseconds=1)
        if life < 1:
            raise BadValue("a message has to live for a moment", hint="leave --ttl away for 30 days")
        return life

    def check(self) -> None:
        """Return nothing if this can be sent, as far as can be known here. Raises what `body` does, and TooLarge."""
        _ = self.life_ms
        require_fits(self.body(0))

    def digest(self, key: SecretBytes, recipient: str, body: Body) -> bytes:
        """Return 32 bytes that are equal for sends of the same content to the same *recipient*, address and all.

        *body* is what `body` returned.
        """
        parts = (recipient, body.text, body.data, body.thread, self.reply_to or "")
        return hmac_sha256(key.reveal, b"digest" + b"".join(_lp(part) for part in parts))

    def _sayable(self) -> tuple[str, str, str]:
        data = "" if self.data is None else _json(self.data)
        parts = (self.text or "", data, self.thread or "")
        if not (parts[0] or data):
            raise EmptyMessage("the message is empty")
        for part in parts:
            require_clean(part)
            if not self.allow_secrets:
                require_no_secret(part)
        return parts


def key_mac(key: SecretBytes, recipient: Username, idempotency_key: str) -> bytes:
    """Return what an idempotency key is kept as. Raises BadValue: empty or longer than 256 characters."""
    if not 0 < len(idempotency_key) <= _KEY_CHARACTERS:
        raise BadValue("an idempotency key has 1 to 256 characters")
    return hmac_sha256(key.reveal, b"key" + lp16(recipient.encode()) + idempotency_key.encode("utf-8", "surrogatepass"))


def _json(data: object) -> str:
    import json  # a text needs none, and its import takes as long as a hundred messages

    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # another type or key, NaN or a cycle, too deep
        raise BadValue(
            "the data cannot be said in JSON",
            hint="use dicts with text keys, lists, text, numbers that are finite, booleans and None, not too deep",
        ) from None


def _lp(part: str) -> bytes:
    octets = part.encode()
    return len(octets).to_bytes(8, "big") + octets
