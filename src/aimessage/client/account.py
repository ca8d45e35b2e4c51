"""What every flow needs, in one value: who we are, our vault, the clock and the dice; and how to log in with it."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aimessage.client.link import Link, dialled_host, open_link
from aimessage.client.profile import Profile, load_token, make_directory
from aimessage.client.vault import Vault
from aimessage.clock import Clock, SystemClock
from aimessage.crypto.kem import require_support
from aimessage.crypto.random import Entropy, system_entropy
from aimessage.e2ee.identity import Account, open_account, prove
from aimessage.errors import RelayChanged
from aimessage.types import Address, SecretBytes, Username
from aimessage.wire.frames import Prove, Proved, RelayFrame

__all__ = ["Here", "file_lock", "log_in", "open_here"]

_LOCK_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Here:
    """One agent on this machine."""

    profile: Profile
    account: Account
    vault: Vault
    clock: Clock
    entropy: Entropy

    def address(self, username: Username) -> Address:
        """Return a peer's address: every peer is at our own relay."""
        return Address(self.profile.relay_id, username)


def open_here(profile: Profile, passphrase: SecretBytes | None) -> Here:
    """Open the agent's token and vault.

    Raises NoIdentity, PassphraseWrong, VaultNewer, VaultDamaged; CryptoUnavailable: before anything is written or sent.
    """
    require_support()
    token = load_token(profile.token_path, passphrase)
    account = open_account(token, Address(profile.relay_id, profile.username))
    vault = Vault(profile.vault_path, account.vault_key)
    return Here(profile, account, vault, SystemClock(), system_entropy)


async def log_in(here: Here, on_push: Callable[[RelayFrame], None]) -> tuple[Link, Proved]:
    """Return a link that has proved our identity to the relay that was pinned at registration.

    Raises RelayChanged, ProofRejected, HostRefused, RelayUnreachable, NotARelay.
    """
    link, welcome = await open_link(here.profile.server, on_push)
    try:
        if welcome.relay_id != here.profile.relay_id:
            raise RelayChanged("the relay at this address is not the one that this identity was registered at")
        with here.vault.transaction() as vault:
            vault_id = vault.vault_id()
        host, client_nonce = dialled_host(here.profile.server), here.entropy(32)
        signature = prove(here.account, host, relay_nonce=welcome.nonce, client_nonce=client_nonce, vault_id=vault_id)
        return link, await link.prove(Prove(here.profile.username, host, client_nonce, vault_id, signature))
    except BaseException:
        link.close()
        raise


@asynccontextmanager
async def file_lock(path: Path) -> AsyncIterator[None]:
    """Hold an exclusive lock that ends with the process, whatever ends it."""
    make_directory(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)
