"""What every flow needs, in one value: who we are, our vault, the clock and the dice; and how to log in with it."""

from typing import TYPE_CHECKING

import msgspec

from aimessage.client.dialling import dialled_host
from aimessage.client.locks import Living
from aimessage.client.profile import Profile, load_token
from aimessage.client.vault import Vault
from aimessage.client.waiting import OnLoop, Waiting
from aimessage.clock import Clock, SystemClock, milliseconds
from aimessage.crypto.kem import require_support
from aimessage.crypto.random import Entropy, system_entropy
from aimessage.e2ee.identity import Account, open_account, prove
from aimessage.errors import RelayChanged
from aimessage.types import Address, SecretBytes, Username, VaultId
from aimessage.wire.frames import Prove, Proved, Welcome

if TYPE_CHECKING:
    from aimessage.client.links import OpenLink

__all__ = ["Here", "Live", "open_here", "proof", "relay_clock"]


class Here(msgspec.Struct, frozen=True, eq=False):
    """One agent on this machine."""

    profile: Profile
    account: Account
    vault: Vault
    clock: Clock
    entropy: Entropy
    living: Living
    waiting: Waiting = msgspec.field(default_factory=OnLoop)

    @property
    def now_ms(self) -> int:
        """Our clock, in milliseconds since 1970."""
        return milliseconds(self.clock.now())

    def close(self) -> None:
        """Release the vault and what we had claimed."""
        self.vault.close()
        self.living.close()

    def address(self, username: Username) -> Address:
        """Return a peer's address: every peer is at our own relay."""
        return Address(self.profile.relay_id, username)


def open_here(profile: Profile, passphrase: SecretBytes | None, waiting: Waiting | None = None) -> Here:
    """Open the agent's token and vault.

    Raises NoIdentity, PassphraseWrong, VaultNewer, VaultDamaged; CryptoUnavailable: before anything is written or sent.
    """
    require_support()
    token = load_token(profile.token_path, passphrase)
    account = open_account(token, Address(profile.relay_id, profile.username))
    vault = Vault(profile.vault_path, account.vault_key)
    living = Living(profile.directory)
    return Here(profile, account, vault, SystemClock(), system_entropy, living, waiting or OnLoop())


_LATEST_MS = 1 << 50  # what a relay may say of its clock


class Live(msgspec.Struct, frozen=True, eq=False):
    """A link that has logged in, what it was told of our account, and the relay's clock (ms since 1970)."""

    link: "OpenLink"
    proved: Proved
    relay_ms: int


def own_vault_id(here: Here) -> VaultId:
    """Return our vault's id, made when it is first asked for."""
    with here.vault.reading() as vault:
        known = vault.meta("vault_id")
    if known is not None:
        return VaultId(known)
    with here.vault.transaction() as vault:
        return vault.vault_id()


def proof(here: Here, welcome: Welcome) -> Prove:
    """Return what proves our identity on this link, to the relay that was pinned at registration.

    Raises RelayChanged: it is another one.
    """
    if welcome.relay_id != here.profile.relay_id:
        raise RelayChanged("the relay at this address is not the one that this identity was registered at")
    vault_id = own_vault_id(here)
    host, client_nonce = dialled_host(here.profile.server), here.entropy(32)
    signature = prove(here.account, host, relay_nonce=welcome.nonce, client_nonce=client_nonce, vault_id=vault_id)
    return Prove(here.profile.username, host, client_nonce, vault_id, signature)


def relay_clock(welcome: Welcome) -> int:
    """Return what the relay says of its clock, in milliseconds since 1970, within reason."""
    return min(max(welcome.time, 0), _LATEST_MS)
