"""How a session with a peer begins: its bundle is fetched, verified against the pin, and used once."""

from collections.abc import Callable

from aimessage.client.account import Here
from aimessage.client.links import OpenLink
from aimessage.client.pins import changed_key, is_pinned
from aimessage.client.transaction import Peer, Transaction
from aimessage.e2ee.identity import Identity
from aimessage.e2ee.prekeys import identity_of, verify_bundle, verify_pair
from aimessage.types import Username

__all__ = ["begin_session"]


async def begin_session(
    here: Here, link: OpenLink, recipient: Username, wanted: Callable[[Transaction, Peer, Identity], bool]
) -> None:
    """Begin a session with *recipient*, if *wanted* still says so once its bundle is here; all others only receive.

    *wanted* runs in the transaction that keeps the session, and may write in it.

    Raises PeerIdentityChanged; RecipientUnknown; DecryptionFailed: the bundle is not what it should be.
    """
    with here.vault.reading() as vault:
        least_epoch = vault.peer(here.address(recipient)).epoch
    answer = await link.bundle(recipient)
    now = here.clock.now()
    bundle = verify_bundle(answer.bundle, here.address(recipient), now=now, least_epoch=least_epoch)
    pair = verify_pair(answer.pair, bundle) if answer.pair else None
    with here.vault.transaction(lasting=False) as vault:  # the commit that keeps what is sealed in it keeps it too
        peer = vault.peer(here.address(recipient))
        if not wanted(vault, peer, identity_of(bundle)):
            return  # nothing is left that this key may have: it is not pinned either
        pinned = is_pinned(peer, identity_of(bundle), here.now_ms)
        if pinned:
            peer.conversation = peer.conversation.start(
                here.account, bundle, pair, epoch=vault.counter("epoch"), now=now, entropy=here.entropy
            )
            peer.epoch = bundle.epoch
        vault.save_peer(peer)
    if not pinned:
        raise changed_key(recipient)
