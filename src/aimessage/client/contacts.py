"""Trust on first use: a peer's identity is pinned at first contact, and a changed one stops everything."""

from aimessage.client.transaction import Peer
from aimessage.e2ee.identity import Identity
from aimessage.errors import PeerIdentityChanged

__all__ = ["is_pinned", "pin_of", "require_pinned"]


def pin_of(identity: Identity | None) -> bytes | None:
    """Return an identity as pins keep it: signing key, agreement key (64 bytes)."""
    return identity.signing_key + identity.agreement_key if identity else None


def is_pinned(peer: Peer, identity: Identity) -> bool:
    """Pin *identity* if nothing is pinned yet; return whether it is the pinned one. The caller saves *peer*."""
    presented = pin_of(identity)
    if peer.pin is None:
        peer.pin = presented
        return True
    if peer.pin != presented:  # public keys: nothing to hide in how long this takes
        return False
    if peer.trust == "first-use":
        peer.trust = "pinned"
    return True


def require_pinned(peer: Peer, identity: Identity) -> None:
    """As `is_pinned`. Raises PeerIdentityChanged: another identity is pinned; nothing may be sent."""
    if not is_pinned(peer, identity):
        name = peer.conversation.peer.username
        raise PeerIdentityChanged(f"the identity key of {name} has changed; nothing was sent")
