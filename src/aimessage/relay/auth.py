"""Logging in: whose key signs what, for which relay, host and nonce. Spec: docs/spec/link.md."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from aimessage.clock import Clock, milliseconds
from aimessage.crypto import signing
from aimessage.errors import (
    AimessageError,
    BadValue,
    DecryptionFailed,
    HostRefused,
    InviteNeeded,
    MalformedOctets,
    ProofRejected,
    RegistrationClosed,
    UsernameMalformed,
    UsernameTaken,
    error_from_code,
)
from aimessage.relay.config import RelayConfig, plain_host
from aimessage.relay.invites import digest_of
from aimessage.relay.limits import BOUNDS
from aimessage.stores.ports import Refusal, Registered, Store
from aimessage.types import RelayId, Username, parse_username
from aimessage.wire.bundles import SUITE, Bundle
from aimessage.wire.frames import Prove, Register

__all__ = ["Authenticator", "Challenge", "host_rule", "verified_bundle"]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_NONCE_BYTES = range(16, 65)
_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Challenge:
    """The nonce of one link and the monotonic moment at which it was made."""

    nonce: bytes
    made_at: float


def host_rule(config: RelayConfig) -> Callable[[str], bool]:
    """Return what decides whether a dialled host is this relay's own."""
    if config.public_hosts:
        allowed = frozenset(config.public_hosts) | (_LOOPBACK if _is_loopback(config.host) else frozenset())
        return lambda host: host in allowed
    return bool  # any name, but not none


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Authenticator:
    """Judges proofs and registrations against the directory."""

    def __init__(self, config: RelayConfig, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._registration = config.registration
        self._host_allowed = host_rule(config)

    async def prove(self, proof: Prove, challenge: Challenge) -> Registered:
        """Return the account that *proof* is for.

        Raises ProofRejected (an unknown name and a wrong key look alike), HostRefused.
        """
        host = self._require_fresh(proof, challenge)
        try:
            username = parse_username(proof.username)
        except UsernameMalformed:
            raise _rejected() from None
        account = await self._store.directory.find(username)
        if account is None:
            raise _rejected()
        self._require_signature(proof, account.signing_key, username, host, challenge)
        return account

    async def register(self, request: Register, challenge: Challenge) -> Registered:
        """Return the account that *request* made, or the same identity's existing one.

        Raises UsernameTaken, UsernameMalformed, ProofRejected, HostRefused, BadValue; if not everybody may register,
        RegistrationClosed, InviteNeeded, InviteRefused, whether the name is free or not.
        """
        host = self._require_fresh(request, challenge)
        username = parse_username(request.username)
        if username != request.username:
            raise UsernameMalformed("a username is lower case")
        bundle = verified_bundle(request.bundle, self._store.relay_id, username)
        if bundle.vault_id != request.vault_id:
            raise BadValue("the bundle is of another vault")
        self._require_signature(request, bundle.signing_key, username, host, challenge)
        now = milliseconds(self._clock.now())
        account = Registered(username, bundle.signing_key, request.bundle, bundle.vault_id, bundle.epoch, now)
        standing = await self._claim(account, request.invite)
        if standing.signing_key != bundle.signing_key:
            raise UsernameTaken(f"the username {username} is taken")
        return standing

    async def _claim(self, account: Registered, invite: str) -> Registered:
        """Return who has the name of *account* now."""
        if self._registration == "open":
            return await self._store.directory.register(account)
        if self._registration == "invite" and invite:
            now = milliseconds(self._clock.now())
            answer = await self._store.invites.register(account, digest_of(invite), now_ms=now)
            if isinstance(answer, Refusal):
                raise error_from_code(answer.code, answer.message)
            return answer
        standing = await self._store.directory.find(account.username)
        if standing is not None and standing.signing_key == account.signing_key:
            return standing
        if self._registration == "invite":
            raise InviteNeeded("this relay registers only who has an invitation")
        raise RegistrationClosed("this relay registers nobody")

    def _require_fresh(self, proof: Prove | Register, challenge: Challenge) -> str:
        if self._clock.monotonic() - challenge.made_at > BOUNDS.nonce_seconds:
            raise ProofRejected("the proof came too late")
        if len(proof.vault_id) != _ID_BYTES or len(proof.client_nonce) not in _NONCE_BYTES:
            raise ProofRejected("the proof is malformed")
        try:
            host = plain_host(proof.host)
        except ValueError:
            host = ""
        if not self._host_allowed(host):
            raise HostRefused("this relay is not reachable under the name that was dialled")
        return host

    def _require_signature(
        self, proof: Prove | Register, key: bytes, username: Username, host: str, challenge: Challenge
    ) -> None:
        build = signing.proof_transcript if isinstance(proof, Prove) else signing.registration_transcript
        transcript = build(
            self._store.relay_id,
            host,
            username,
            relay_nonce=challenge.nonce,
            client_nonce=proof.client_nonce,
            vault_id=proof.vault_id,
        )
        try:
            signing.verify(key, proof.signature, transcript)
        except DecryptionFailed:
            raise _rejected() from None


def _rejected() -> AimessageError:
    return ProofRejected("the relay does not know this username under this key")


def verified_bundle(octets: bytes, relay_id: RelayId, username: Username) -> Bundle:
    """Return the bundle, if it is this user's at this relay and both its signatures are good.

    Raises BadValue: anything is not so.
    """
    try:
        bundle = Bundle.parse(octets)
        identity = signing.identity_transcript(SUITE, relay_id, username, bundle.agreement_key)
        signing.verify(bundle.signing_key, bundle.identity_signature, identity)
        signing.verify(bundle.signing_key, bundle.signature, signing.bundle_transcript(bundle.content))
    except (MalformedOctets, DecryptionFailed):
        raise BadValue("the bundle is malformed or its signatures are not good") from None
    if bundle.relay_id != relay_id or bundle.username != username:
        raise BadValue("the bundle is for another address")
    return bundle
