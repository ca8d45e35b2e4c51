"""What the protocol needs of its owner's storage, as a port: secrets are looked up, never enumerated."""

from typing import Protocol

from aimessage.e2ee.prekeys import BundleSecrets, PairSecrets

__all__ = ["PrekeySecrets"]


class PrekeySecrets(Protocol):
    """The secrets behind the prekeys that we published, found by reference (32 bytes)."""

    def bundle(self, reference: bytes) -> BundleSecrets | None:
        """Return the secrets of that bundle, unless they were erased."""
        ...

    def pair(self, reference: bytes) -> PairSecrets | None:
        """Return the secrets of that one-time pair, unless it was used or erased."""
        ...
