"""Every frame that a client and a relay exchange, one row a struct.

A frame is a MessagePack array whose first element is its tag. Fields are only ever appended, with a default, and a
reader ignores fields behind the last one that it knows; so both sides can be upgraded alone. In every request the
second element is the request id (at least 1), by which its one answer is found: its result or `Refused`.
`docs/spec/link.md` draws each frame.
"""

from enum import IntEnum

import msgspec

from aimessage.wire.limits import Limits

__all__ = [
    "Accepted",
    "Ack",
    "Acknowledge",
    "AnyFrame",
    "BundleAnswer",
    "Bye",
    "CaughtUp",
    "ClientFrame",
    "Deliver",
    "Done",
    "FetchBundle",
    "FetchState",
    "ListUsers",
    "MailClass",
    "PairsLow",
    "Post",
    "Prove",
    "Proved",
    "Publish",
    "Refused",
    "Register",
    "RelayFrame",
    "StateAnswer",
    "StockPairs",
    "StoreState",
    "Subscribe",
    "Subscribed",
    "UserRow",
    "Users",
    "Welcome",
]


class MailClass(IntEnum):
    """What the relay may know of an envelope's purpose: it keeps separate quotas for the two."""

    MESSAGE = 0
    CONTROL = 1


class Frame(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The common shape; see the module's first lines."""


# Client → relay.


class Prove(Frame, frozen=True, tag=1):
    """Log in: *signature* is by the identity key over `crypto.signing.proof_transcript`."""

    username: str
    host: str
    client_nonce: bytes
    vault_id: bytes
    signature: bytes


class Register(Frame, frozen=True, tag=2):
    """Claim a new username and log in: *bundle* is the signed bundle, *signature* covers `registration_transcript`.

    Registering the same username again with the same identity key is a login: a lost answer can be repeated.
    """

    username: str
    host: str
    client_nonce: bytes
    vault_id: bytes
    signature: bytes
    bundle: bytes
    invite: str = ""


class Publish(Frame, frozen=True, tag=3):
    """Replace our bundle, and so make the vault that it names the active one. Answer: `Done`."""

    id: int
    bundle: bytes


class StockPairs(Frame, frozen=True, tag=4):
    """Add signed one-time pairs for the vault that our bundle names. Answer: `Done` with the stock's size."""

    id: int
    pairs: list[bytes]


class FetchBundle(Frame, frozen=True, tag=5):
    """Ask for a peer's bundle, and claim one of its one-time pairs if *claim_pair*. Answer: `BundleAnswer`."""

    id: int
    username: str
    claim_pair: bool = True


class Post(Frame, frozen=True, tag=6):
    """Hand over one sealed message. Answer: `Accepted`, once it is on the relay's disk.

    *expires_at* is in milliseconds since 1970, 0 for the relay's own limit.
    """

    id: int
    to: str
    message_id: bytes
    attempt: int
    mail_class: int
    expires_at: int
    sealed: bytes


class Subscribe(Frame, frozen=True, tag=7):
    """Start deliveries on this link, from everything that is undeleted. Answer: `Subscribed`.

    *generation* counts the subscriptions of this vault; one that is not higher than the last is refused.
    """

    id: int
    vault_id: bytes
    generation: int


class Ack(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One mailbox entry to delete."""

    position: int
    message_id: bytes


class Acknowledge(Frame, frozen=True, tag=8):
    """Delete these entries; no answer. Ignored unless *subscription* is the mailbox's newest."""

    subscription: int
    entries: list[Ack]


class ListUsers(Frame, frozen=True, tag=9):
    """Ask for usernames in order, from the first after *after*. Answer: `Users`."""

    id: int
    everyone: bool = False
    after: str = ""


class StoreState(Frame, frozen=True, tag=10):
    """Keep this sealed client state for a later restore, if *version* is higher than the kept one. Answer: `Done`."""

    id: int
    version: int
    blob: bytes


class FetchState(Frame, frozen=True, tag=11):
    """Ask for the kept client state. Answer: `StateAnswer`."""

    id: int


# Relay → client.


class Welcome(Frame, frozen=True, tag=64):
    """The first frame on a link. *time* is the relay's clock in milliseconds since 1970, a hint."""

    nonce: bytes
    relay_id: bytes
    name: str
    version: str
    time: int
    limits: Limits
    features: list[str]


class Proved(Frame, frozen=True, tag=65):
    """The login holds. *pairs* is our stock of one-time pairs, *epoch* and *vault_id* are of our own bundle there."""

    pairs: int
    epoch: int
    vault_id: bytes
    state_version: int = 0


class Refused(Frame, frozen=True, tag=66):
    """A request failed; *id* 0 speaks of the link. *code* is a code of `errors`; *retry_after* is in seconds."""

    id: int
    code: str
    message: str
    retry_after: float = 0.0


class Done(Frame, frozen=True, tag=67):
    """The request is done and on disk; *count* is what it says of it, if anything."""

    id: int
    count: int = 0


class BundleAnswer(Frame, frozen=True, tag=68):
    """A peer's bundle and, if one was asked for and left, a one-time pair that nobody else gets; else empty."""

    id: int
    bundle: bytes
    pair: bytes = b""


class Accepted(Frame, frozen=True, tag=69):
    """The message is on the relay's disk; *duplicate* if it already was. *expires_at*: when the relay drops it."""

    id: int
    accepted_at: int
    expires_at: int
    duplicate: bool = False


class Subscribed(Frame, frozen=True, tag=70):
    """Deliveries follow, each with this *subscription* number, until `CaughtUp` and after it as mail comes."""

    id: int
    subscription: int
    waiting: int = 0


class Deliver(Frame, frozen=True, tag=71):
    """One sealed message from the mailbox. Times are the relay's, in milliseconds since 1970."""

    subscription: int
    position: int
    sender: str
    message_id: bytes
    attempt: int
    mail_class: int
    accepted_at: int
    expires_at: int
    sealed: bytes


class CaughtUp(Frame, frozen=True, tag=72):
    """Everything that was in the mailbox at `Subscribe` has been sent."""

    subscription: int


class UserRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One registered username."""

    username: str
    online: bool


class Users(Frame, frozen=True, tag=73):
    """A page of usernames in order; *more* if the next page is not empty."""

    id: int
    rows: list[UserRow]
    more: bool = False


class StateAnswer(Frame, frozen=True, tag=74):
    """The kept client state; version 0 and empty if there is none."""

    id: int
    version: int
    blob: bytes


class PairsLow(Frame, frozen=True, tag=75):
    """Only *left* one-time pairs are left: upload more."""

    left: int


class Bye(Frame, frozen=True, tag=76):
    """The relay closes this link; come back after *retry_after* seconds unless *code* says otherwise."""

    code: str
    message: str
    retry_after: float = 0.0


ClientFrame = (
    Prove | Register | Publish | StockPairs | FetchBundle | Post | Subscribe | Acknowledge | ListUsers | StoreState
    | FetchState
)  # fmt: skip
RelayFrame = (
    Welcome | Proved | Refused | Done | BundleAnswer | Accepted | Subscribed | Deliver | CaughtUp | Users | StateAnswer
    | PairsLow | Bye
)  # fmt: skip
AnyFrame = ClientFrame | RelayFrame
