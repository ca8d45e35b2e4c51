"""Two agents with nothing between them: what the end-to-end core needs, and no network."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from aimessage.crypto.random import Entropy
from aimessage.e2ee.identity import Account, Token, open_account
from aimessage.e2ee.prekeys import BundleSecrets, PairSecrets, make_bundle, make_pairs, verify_bundle, verify_pair
from aimessage.e2ee.session import Conversation, Envelope, Opened
from aimessage.types import Address, MessageId, RelayId, SecretBytes, Username, VaultId
from aimessage.wire.bundles import Bundle, OneTimePair

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
RELAY = RelayId(b"relay-id-16bytes")


def seeded(seed: int) -> Entropy:
    """Return repeatable entropy."""
    return Random(seed).randbytes


@dataclass
class Party:
    """One agent: its account, its prekeys, and its conversation with the other."""

    name: str
    seed: int
    entropy: Entropy = field(init=False)
    account: Account = field(init=False)
    bundle: Bundle = field(init=False)
    bundles: dict[bytes, BundleSecrets] = field(default_factory=dict)
    pairs: list[OneTimePair] = field(default_factory=list)
    pair_secrets: dict[bytes, PairSecrets] = field(default_factory=dict)
    conversation: Conversation = field(init=False)
    now: datetime = NOON
    count: int = 0

    def __post_init__(self) -> None:
        self.entropy = seeded(self.seed)
        self.account = open_account(Token(SecretBytes(self.entropy(32))), Address(RELAY, Username(self.name)))
        self.publish(epoch=1)

    def publish(self, epoch: int) -> None:
        """Make a bundle and a few one-time pairs, as registration does."""
        vault_id = VaultId(self.entropy(16))
        self.bundle, secrets = make_bundle(
            self.account, vault_id=vault_id, epoch=epoch, now=self.now, entropy=self.entropy
        )
        self.bundles[secrets.reference] = secrets
        made = make_pairs(self.account, vault_id=vault_id, count=2, entropy=self.entropy)
        self.pairs = [pair for pair, _ in made]
        self.pair_secrets |= {secret.reference: secret for _, secret in made}

    def meet(self, other: "Party") -> None:
        """Forget everything about *other* and be ready to write to it."""
        self.conversation = Conversation.empty(other.account.address)

    def start(self, other: "Party", *, with_pair: bool = True, epoch: int = 1) -> None:
        """Start a session from the other's published bundle."""
        bundle = verify_bundle(other.bundle.encode(), other.account.address, now=self.now)
        pair = verify_pair(other.pairs.pop().encode(), bundle) if with_pair and other.pairs else None
        self.conversation = self.conversation.start(
            self.account, bundle, pair, epoch=epoch, now=self.now, entropy=self.entropy
        )

    def seal(self, body: bytes) -> Envelope:
        """Seal one body under a fresh id."""
        self.count += 1
        message_id = MessageId(self.entropy(16))
        self.conversation, sealed = self.conversation.seal(message_id, 0, body, entropy=self.entropy)
        return Envelope(Username(self.name), message_id, 0, sealed)

    def open(self, envelope: Envelope) -> bytes:
        """Open one envelope and keep what follows from it."""
        opened = self.try_open(envelope)
        self.conversation = opened.conversation
        if opened.used_pair:
            del self.pair_secrets[opened.used_pair]
        return opened.body

    def try_open(self, envelope: Envelope) -> Opened:
        """Open one envelope and keep nothing."""
        return self.conversation.open(self.account, envelope, PartyPrekeys(self), now=self.now, entropy=self.entropy)

    def later(self, delay: timedelta) -> None:
        """Let time pass for this agent."""
        self.now += delay

    def bundle_secrets(self) -> BundleSecrets:
        """The secrets of the current bundle."""
        return next(reversed(self.bundles.values()))


class PartyPrekeys:
    """The PrekeySecrets port over a party's dictionaries."""

    def __init__(self, party: Party) -> None:
        self._party = party

    def bundle(self, reference: bytes) -> BundleSecrets | None:
        """Return a bundle's secrets."""
        return self._party.bundles.get(reference)

    def pair(self, reference: bytes) -> PairSecrets | None:
        """Return a pair's secrets."""
        return self._party.pair_secrets.get(reference)


def strangers(seed: int = 1) -> tuple[Party, Party]:
    """Return alice and bobby, who have never written to each other."""
    alice, bobby = Party("alice", seed), Party("bobby", seed + 1)
    alice.meet(bobby)
    bobby.meet(alice)
    return alice, bobby


def acquainted(seed: int = 1) -> tuple[Party, Party]:
    """Return alice and bobby in one session that both have confirmed."""
    alice, bobby = strangers(seed)
    alice.start(bobby)
    bobby.open(alice.seal(b"hello"))
    alice.open(bobby.seal(b"hello yourself"))
    return alice, bobby
