"""Beginning to receive on a link: our prekeys are served, and the relay delivers to this vault from now on."""

from aimessage.client.account import Here, Live
from aimessage.client.prekeys import next_epoch, publish_prekeys
from aimessage.wire.frames import Subscribe, Subscribed

__all__ = ["renew_vault", "subscribe"]


async def subscribe(here: Here, live: Live, *, publish: bool) -> bool:
    """Subscribe, having become the active machine if *publish*; return False if another machine is it.

    Raises GenerationStale: this vault is a clone or was rolled back; Superseded.
    """
    if publish:
        await publish_prekeys(here, live)
    with here.vault.transaction() as vault:
        vault_id = vault.vault_id()
        if not publish and live.proved.vault_id != vault_id:
            return False
        generation = vault.bump("generation")  # committed first: a copy of this vault cannot use it as well
    await live.link.request(lambda request_id: Subscribe(request_id, vault_id, generation), Subscribed)
    return True


def renew_vault(here: Here) -> str:
    """Go on as another vault, so that no counter and no session that a copy of this one may use is used again.

    Return what the agent's owner is told of it.
    """
    with here.vault.transaction() as vault:
        vault.save_meta("vault_id", here.entropy(16))
        vault.save_counter("generation", 0)
        vault.save_counter("published_at", 0)
        vault.save_counter("renewed_at", here.now_ms)
        vault.save_counter("restored", 1)  # what came in the hours that this vault lacks is no gap of the relay's
        vault.save_counter("epoch", next_epoch(here, vault))  # sessions that we start now are above the copy's
        for name in vault.peer_names():
            peer = vault.peer(here.address(name))
            peer.conversation = peer.conversation.retire()
            peer.sent_sequence = 0
            vault.save_peer(peer)
        vault.run("DELETE FROM heard")
    return (
        "this vault is a copy, or was rolled back: it goes on under a new vault id, and every session starts anew; "
        "nothing was sealed twice with one key"
    )
