"""Our published prekeys: a bundle that is renewed weekly, a stock of one-time pairs, and their secrets in the vault."""

from datetime import timedelta

from aimessage.client.account import Here
from aimessage.client.link import Link
from aimessage.clock import milliseconds
from aimessage.e2ee.prekeys import make_bundle, make_pairs
from aimessage.wire.bundles import Bundle
from aimessage.wire.frames import Done, Proved, Publish, StockPairs
from aimessage.wire.limits import PAIRS_PER_STOCK

__all__ = ["PAIRS_LOW", "new_bundle", "publish_prekeys", "stock_pairs"]

PAIRS_LOW = 20
_ROTATION = timedelta(days=7)
_OLD_SECRETS_LIVE = timedelta(days=35)


def new_bundle(here: Here, *, known_epoch: int = 0) -> Bundle:
    """Make a bundle, its secrets saved; it counts only once the relay has it. Old secrets are erased after 35 days."""
    now = here.clock.now()
    with here.vault.transaction() as vault:
        epoch = 1 + max(vault.counter("epoch"), known_epoch, int(now.timestamp()) // 60)
        bundle, secrets = make_bundle(
            here.account, vault_id=vault.vault_id(), epoch=epoch, now=now, entropy=here.entropy
        )
        vault.save_bundle(secrets, milliseconds(now))
        vault.save_counter("epoch", epoch)
        # 35 days count from when a bundle was replaced: the newest older one was still served until then.
        cutoff = milliseconds(now - _OLD_SECRETS_LIVE)
        vault.run("DELETE FROM bundles WHERE made_at < (SELECT max(made_at) FROM bundles WHERE made_at < ?)", (cutoff,))
    return bundle


async def publish_prekeys(here: Here, link: Link, proved: Proved) -> None:
    """Make this vault the active one, its bundle fresh and its stock full; no request where all is well."""
    with here.vault.transaction() as vault:
        vault_id = vault.vault_id()
        published_at = vault.counter("published_at")
    stale = milliseconds(here.clock.now()) - published_at > _ROTATION / timedelta(milliseconds=1)
    pairs = proved.pairs
    if stale or proved.vault_id != vault_id:
        bundle = new_bundle(here, known_epoch=proved.epoch)
        await link.request(lambda request_id: Publish(request_id, bundle.encode()), Done)
        mark_published(here)
        pairs = pairs if proved.vault_id == vault_id else 0
    if pairs < PAIRS_LOW:
        await stock_pairs(here, link, PAIRS_PER_STOCK - pairs)


def mark_published(here: Here) -> None:
    """Remember that the relay has our newest bundle since now."""
    with here.vault.transaction() as vault:
        vault.save_counter("published_at", milliseconds(here.clock.now()))


async def stock_pairs(here: Here, link: Link, count: int) -> None:
    """Upload *count* new one-time pairs, their secrets saved first."""
    with here.vault.transaction() as vault:
        made = make_pairs(here.account, vault_id=vault.vault_id(), count=count, entropy=here.entropy)
        for _, secrets in made:
            vault.save_pair(secrets)
    encoded = [pair.encode() for pair, _ in made]
    await link.request(lambda request_id: StockPairs(request_id, encoded), Done)
