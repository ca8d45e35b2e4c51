"""Our published prekeys: a bundle that is renewed weekly, a stock of one-time pairs, and their secrets in the vault."""

from datetime import timedelta

from aimessage.client.account import Here, Live
from aimessage.client.links import OpenLink
from aimessage.client.transaction import Transaction
from aimessage.clock import milliseconds
from aimessage.e2ee.prekeys import make_bundle, make_pairs
from aimessage.errors import Superseded
from aimessage.octets import u64
from aimessage.wire.bundles import Bundle
from aimessage.wire.frames import Done, Publish, StockPairs
from aimessage.wire.limits import PAIRS_PER_STOCK

__all__ = [
    "PAIRS_LOW",
    "is_stale",
    "mark_published",
    "new_bundle",
    "next_epoch",
    "publish_prekeys",
    "renew_bundle",
    "stock_pairs",
]

PAIRS_LOW = 20
_ROTATION = timedelta(days=7)
_OLD_SECRETS_LIVE = timedelta(days=35)
_TAKEOVERS_AN_HOUR = 6
_HOUR_MS = 3_600_000


def new_bundle(here: Here, *, known_epoch: int = 0) -> Bundle:
    """Make a bundle, its secrets saved; it counts only once the relay has it. Old secrets are erased after 35 days."""
    now = here.clock.now()
    with here.vault.transaction() as vault:
        epoch = next_epoch(here, vault, known_epoch)
        bundle, secrets = make_bundle(
            here.account, vault_id=vault.vault_id(), epoch=epoch, now=now, entropy=here.entropy
        )
        vault.save_bundle(secrets, milliseconds(now))
        vault.save_counter("epoch", epoch)
        # 35 days count from when a bundle was replaced: the newest older one was still served until then.
        cutoff = milliseconds(now - _OLD_SECRETS_LIVE)
        vault.run("DELETE FROM bundles WHERE made_at < (SELECT max(made_at) FROM bundles WHERE made_at < ?)", (cutoff,))
    return bundle


def next_epoch(here: Here, vault: Transaction, known_epoch: int = 0) -> int:
    """Return an epoch above every one that this identity has had, as far as this vault, *known_epoch* and time tell."""
    return 1 + max(vault.counter("epoch"), known_epoch, here.now_ms // 60_000)


async def publish_prekeys(here: Here, live: Live) -> None:
    """Make this vault the active one, its bundle fresh and its stock full; no request where all is well.

    Raises Superseded: this machine and another have taken over from each other too often.
    """
    link, proved = live.link, live.proved
    with here.vault.transaction() as vault:
        vault_id = vault.vault_id()
        ours = proved.vault_id == vault_id
        if not ours:
            _count_takeover(vault, here.now_ms)
    pairs = min(max(proved.pairs, 0), PAIRS_PER_STOCK) if ours else 0
    if not ours or is_stale(here):
        await renew_bundle(here, link, proved.epoch)
    if pairs < PAIRS_LOW:
        await stock_pairs(here, link, PAIRS_PER_STOCK - pairs)


def is_stale(here: Here) -> bool:
    """Return whether a week has passed since the relay had our newest bundle; a clock set back counts as one."""
    with here.vault.reading() as vault:
        age = here.now_ms - vault.counter("published_at")
    return not 0 <= age <= _ROTATION / timedelta(milliseconds=1)


async def renew_bundle(here: Here, link: OpenLink, known_epoch: int = 0) -> None:
    """Make a new bundle and have the relay serve it."""
    bundle = new_bundle(here, known_epoch=known_epoch)
    await link.request(lambda request_id: Publish(request_id, bundle.encode()), Done)
    mark_published(here)


def _count_takeover(vault: Transaction, now_ms: int) -> None:
    raw = vault.meta("takeovers") or b""
    times = [int.from_bytes(raw[at : at + 8], "big") for at in range(0, len(raw), 8)]
    recent = [time for time in times if 0 <= now_ms - time < _HOUR_MS]
    if len(recent) >= _TAKEOVERS_AN_HOUR:
        raise Superseded(
            "two machines keep taking this identity from each other",
            hint="stop the other one, or wait an hour; each machine should have its own identity",
        )
    vault.save_meta("takeovers", b"".join(u64(time) for time in (*recent, now_ms)))


def mark_published(here: Here) -> None:
    """Remember that the relay has our newest bundle since now."""
    with here.vault.transaction() as vault:
        vault.save_counter("published_at", here.now_ms)


async def stock_pairs(here: Here, link: OpenLink, count: int) -> None:
    """Upload *count* new one-time pairs, their secrets saved first."""
    with here.vault.transaction() as vault:
        made = make_pairs(here.account, vault_id=vault.vault_id(), count=count, entropy=here.entropy)
        for _, secrets in made:
            vault.save_pair(secrets)
    encoded = [pair.encode() for pair, _ in made]
    await link.request(lambda request_id: StockPairs(request_id, encoded), Done)
