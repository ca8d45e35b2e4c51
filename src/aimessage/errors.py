"""Every error that AI Message raises on purpose, as one tree.

The branches answer one question: who must act? A leaf carries a stable `code`, which is the same word on the
wire, under `--json`, in the SDK and in the logs.

    AimessageError
    ├── InvalidInput        the caller must change the call            (exit 2)
    ├── NotFound            the name or id does not exist              (exit 3)
    ├── NotAuthenticated    there is no identity, or it is not believed (exit 4)
    ├── Denied              a rule of the relay or of a peer says no   (exit 5)
    ├── HumanNeeded         a key is not to be believed: look          (exit 6)
    ├── OverLimit           smaller, or later after others have read   (exit 7)
    ├── Temporary           nobody's fault: try again                  (exit 75)
    ├── TimedOut            what was awaited did not come              (exit 124)
    └── Broken              something is not what it should be         (exit 1)

`str(error)` is safe to print and to log: it never holds a body, a key or a token.
"""

from datetime import timedelta
from typing import ClassVar

__all__ = [
    "AimessageError",
    "InvalidInput", "UsernameMalformed", "EmptyMessage", "NotUtf8", "TextNotAllowed", "BadValue",
    "NotFound", "RecipientUnknown", "MessageUnknown",
    "NotAuthenticated", "NoIdentity", "TokenMalformed", "ProofRejected", "PassphraseWrong",
    "Denied", "UsernameTaken", "IdentityExists", "Blocked", "LoopStopped", "SecretFound", "Superseded", "HostRefused",
    "IdempotencyConflict", "GenerationStale", "ProxyRefused", "RegistrationClosed", "InviteNeeded", "InviteRefused",
    "HumanNeeded", "PeerIdentityChanged", "RelayChanged", "CertificateRefused",
    "OverLimit", "TooLarge", "MailboxFull",
    "Temporary", "RelayUnreachable", "RateLimited", "RelayUnavailable", "LinkLost",
    "VaultUnavailable",
    "TimedOut", "FateTimedOut",
    "Broken", "NotARelay", "VaultNewer", "VaultDamaged", "StoreDamaged", "CryptoUnavailable", "DecryptionFailed",
    "RemoteProtocolError", "Unsupported", "MalformedOctets", "ConfigInvalid",
    "error_from_code",
]  # fmt: skip


class AimessageError(Exception):
    """The root: catch this to catch all of ours.

    `hint` is a command or an action that helps; `retry_after` is how long to wait before the same call makes
    sense again, where that is known; `message_id` names a message that waits in the outbox because of it.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str | None] = None

    message_id: str | None = None

    def __init__(self, message: str, *, hint: str | None = None, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is not None else self.default_hint
        self.retry_after = retry_after


class InvalidInput(AimessageError):
    """The caller must change the call."""

    code = "invalid_input"


class UsernameMalformed(InvalidInput):
    """A username outside `^[a-z0-9][a-z0-9_-]{2,31}$`, or a reserved one."""

    code = "username_malformed"
    default_hint = "use 3 to 32 of a-z 0-9 _ - and start with a letter or digit"


class EmptyMessage(InvalidInput):
    """A message without a body."""

    code = "message_empty"
    default_hint = "pass the text with -m TEXT, on stdin with -m -, or with --file PATH"


class NotUtf8(InvalidInput):
    """Input that is not UTF-8 text."""

    code = "not_utf8"
    default_hint = "messages are UTF-8 text; encode binary data, for example with base64, and send that"


class TextNotAllowed(InvalidInput):
    """Text outside profile AIM-TEXT-1; `index` counts code points from 0."""

    code = "text_not_allowed"

    def __init__(self, message: str, *, index: int, code_point: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.index = index
        self.code_point = code_point


class BadValue(InvalidInput):
    """A value that has no meaning here: a malformed address, duration, JSON, file name or setting."""

    code = "bad_value"


class NotFound(AimessageError):
    """What was named does not exist."""

    code = "not_found"


class RecipientUnknown(NotFound):
    """Nobody with this username is registered at the relay."""

    code = "recipient_unknown"
    default_hint = "aimessage users --all"


class MessageUnknown(NotFound):
    """No message with this id is known here."""

    code = "message_unknown"


class NotAuthenticated(AimessageError):
    """There is no identity here, or the relay does not believe it."""

    code = "not_authenticated"


class NoIdentity(NotAuthenticated):
    """This agent has not been registered or restored on this machine."""

    code = "no_identity"
    default_hint = "aimessage register --username NAME --server ws://localhost:8080"


class TokenMalformed(NotAuthenticated):
    """What was given as a token is not one: wrong prefix, length or checksum."""

    code = "token_malformed"
    default_hint = "a token starts with aim1- and is printed by: aimessage token show"


class ProofRejected(NotAuthenticated):
    """The relay knows the username under another identity key."""

    code = "proof_rejected"
    default_hint = "check the token and the username, or choose another username with: aimessage register"


class PassphraseWrong(NotAuthenticated):
    """The passphrase does not open the token file."""

    code = "passphrase_wrong"
    default_hint = "check the file that --passphrase-file names; the identity is unchanged"


class Denied(AimessageError):
    """A rule says no, and asking again does not change it."""

    code = "denied"


class UsernameTaken(Denied):
    """Somebody else registered this username first."""

    code = "username_taken"
    default_hint = "choose another username, or restore yours with: aimessage restore --username NAME"


class IdentityExists(Denied):
    """This agent already has an identity on this machine."""

    code = "identity_exists"
    default_hint = "use another name with --agent NAME"


class Blocked(Denied):
    """We block this peer, or the relay bans us."""

    code = "blocked"


class LoopStopped(Denied):
    """Two agents have answered each other too often, or too fast; `retry_after` where time helps."""

    code = "loop_stopped"
    default_hint = "if this is not a loop, start a new exchange: aimessage send without --reply-to, outside any handler"


class SecretFound(Denied):
    """The message looks as if it held a secret; *rule* names what kind."""

    code = "secret_found"
    default_hint = "take the secret out, or pass --allow-secrets if the recipient is to have it"

    def __init__(
        self, message: str, *, rule: str = "", hint: str | None = None, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(message, hint=hint, retry_after=retry_after)
        self.rule = rule


class Superseded(Denied):
    """The same identity receives on another machine now."""

    code = "superseded"
    default_hint = "run aimessage listen here to take over again"


class HostRefused(Denied):
    """The relay is not reachable under the name that we dialled."""

    code = "host_refused"
    default_hint = "dial a name that the relay's operator gave with --public-host"


class GenerationStale(Denied):
    """This vault has subscribed with a higher generation elsewhere: it is a clone, or was restored from a copy."""

    code = "generation_stale"
    default_hint = "run each copy of an agent on one machine only; elsewhere use: aimessage restore"


class IdempotencyConflict(Denied):
    """An idempotency key was used before with another message."""

    code = "idempotency_conflict"
    default_hint = "use a new --idempotency-key for a new message"


class ProxyRefused(Denied):
    """The proxy between us and the relay does not let us through."""

    code = "proxy_refused"
    default_hint = "ask whoever runs the proxy to allow the relay, or name the relay's host in NO_PROXY"


class RegistrationClosed(Denied):
    """The relay registers nobody; who is registered logs in as ever."""

    code = "registration_closed"
    default_hint = "ask the relay's operator for an account, or restore yours with: aimessage restore --username NAME"


class InviteNeeded(Denied):
    """The relay registers only who has an invitation of its operator, and none was shown."""

    code = "invite_needed"
    default_hint = "ask the relay's operator for an invitation and register with: --invite-file FILE"


class InviteRefused(Denied):
    """The relay does not know the invitation, or it is used up or has expired."""

    code = "invite_refused"
    default_hint = "ask the relay's operator for another invitation: aimessage-server invite create"


class HumanNeeded(AimessageError):
    """A key is not the one that was pinned or vouched for: a person must look before anything is sent."""

    code = "human_needed"


class PeerIdentityChanged(HumanNeeded):
    """The peer's identity key is not the pinned one."""

    code = "peer_identity_changed"
    default_hint = "compare safety numbers with the peer's operator over another channel before accepting the new key"


class RelayChanged(HumanNeeded):
    """The relay is not the one that this identity was registered at."""

    code = "relay_changed"
    default_hint = "check the --server address; register a new agent with --agent NAME if the relay is really new"


class CertificateRefused(HumanNeeded):
    """The relay's TLS certificate does not verify: expired, for another host, or from an unknown issuer."""

    code = "certificate_refused"
    default_hint = "if the relay has an authority of its own, name its certificate with --ca-file FILE"


class OverLimit(AimessageError):
    """Too much: smaller, or later."""

    code = "over_limit"


class TooLarge(OverLimit):
    """A message over the size limit."""

    code = "too_large"
    default_hint = "split the message, or put the data elsewhere and send a pointer to it"


class MailboxFull(OverLimit):
    """The recipient's mailbox, or our share of it, is full."""

    code = "mailbox_full"
    retryable = True
    default_hint = "try again when the recipient has read its mail"


class Temporary(AimessageError):
    """Nobody's fault; the same call may succeed later."""

    code = "temporary"
    retryable = True


class RelayUnreachable(Temporary):
    """No connection to the relay."""

    code = "relay_unreachable"
    default_hint = "check the --server address, and that the relay runs: aimessage-server --port 8080"


class RateLimited(Temporary):
    """A limit of the relay; `retry_after` says for how long."""

    code = "rate_limited"


class RelayUnavailable(Temporary):
    """The relay is up but cannot do this now: draining, disk nearly full, store not reachable."""

    code = "relay_unavailable"


class LinkLost(Temporary):
    """The connection broke before the answer came."""

    code = "link_lost"


class VaultUnavailable(Temporary):
    """The local vault cannot be written now: the disk is full or read-only, or another process holds it too long."""

    code = "vault_unavailable"
    default_hint = "check the free space and the permissions of the agent's directory, then try again"


class TimedOut(AimessageError):
    """What was awaited did not come in time."""

    code = "timed_out"
    retryable = True


class FateTimedOut(TimedOut):
    """A message was accepted, and what was awaited of it did not come in time: sending it again would double it."""

    code = "fate_timed_out"
    retryable = False


class Broken(AimessageError):
    """Something is not what it should be."""

    code = "broken"


class NotARelay(Broken):
    """What answers at this address does not speak our protocol."""

    code = "not_a_relay"
    default_hint = "check the --server address: it should be the ws:// or wss:// address of an aimessage-server"


class VaultNewer(Broken):
    """The local vault was written by a newer version."""

    code = "vault_newer"
    default_hint = "upgrade: pip install --upgrade aimessage"


class VaultDamaged(Broken):
    """The local vault does not open with this token, or is damaged."""

    code = "vault_damaged"


class StoreDamaged(Broken):
    """The relay's store is damaged; the message names where."""

    code = "store_damaged"
    default_hint = "stop the relay and restore the last backup"


class CryptoUnavailable(Broken):
    """The installed `cryptography` lacks a primitive."""

    code = "crypto_unavailable"
    default_hint = "pip install --upgrade 'cryptography>=50'"


class DecryptionFailed(Broken):
    """A sealed box does not open. All causes look alike on purpose."""

    code = "undecryptable"


class RemoteProtocolError(Broken):
    """The other side broke the protocol."""

    code = "protocol_error"


class Unsupported(Broken):
    """The other side does not know this request."""

    code = "unsupported"
    default_hint = "the relay is older than this client, or has the feature switched off"


class MalformedOctets(Broken):
    """Bytes that are not the structure they claim to be."""

    code = "malformed"


class ConfigInvalid(InvalidInput):
    """A setting that the relay or the client cannot run with."""

    code = "config_invalid"


def _leaves(branch: type[AimessageError]) -> dict[str, type[AimessageError]]:
    found = {branch.code: branch}
    for child in branch.__subclasses__():
        found |= _leaves(child)
    return found


def error_from_code(code: str, message: str, *, retry_after: timedelta | None = None) -> AimessageError:
    """Return the error that *code* names, as a relay's refusal travels; an unknown code gives a plain `Denied`."""
    kind = _leaves(AimessageError).get(code, Denied)
    if kind is TextNotAllowed:  # never travels; it needs an index that only the sender has
        kind = InvalidInput
    return kind(message, retry_after=retry_after)
