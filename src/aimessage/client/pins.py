"""Trust on first use: a peer's identity is pinned at first contact, and a changed one stops everything."""

from aimessage.client.transaction import Peer
from aimessage.e2ee.identity import Identity
from aimessage.errors import PeerIdentityChanged

__all__ = ["changed_key", "identity_of_pin", "is_pinned", "pin_of"]


def pin_of(identity: Identity | None) -> bytes | None:
    """Return an identity as pins keep it: signing key, agreement key (64 bytes)."""
    return identity.signing_key + identity.agreement_key if identity else None


def identity_of_pin(pin: bytes) -> Identity:
    """Return the identity that a pin keeps."""
    return Identity(pin[:32], pin[32:])


def is_pinned(peer: Peer, identity: Identity, now_ms: int) -> bool:
    """Pin *identity* if nothing is pinned yet; return whether it is the pinned one. The caller saves *peer*.

    Another one is noted as presented: a person can then compare it, and `contacts verify` believe it.
    """
    presented = pin_of(identity)
    if peer.pin is None:
        peer.pin, peer.met_at = presented, now_ms
        return True
    if peer.pin != presented:  # public keys: nothing to hide in how long this takes
        peer.presented = presented
        return False
    if peer.trust == "first-use":
        peer.trust = "pinned"
    return True


def changed_key(name: str) -> PeerIdentityChanged:
    """Return the error that says that another identity than the pinned one came; nothing may be sent."""
    return PeerIdentityChanged(
        f"the identity key of {name} has changed; nothing was sent",
        hint=f"ask the operator of {name}, over another channel, for the address that aimessage whoami prints there; "
        f"then: aimessage contacts verify {name} ADDRESS",
    )
