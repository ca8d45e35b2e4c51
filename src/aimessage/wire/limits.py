"""What the protocol itself bounds, and what a relay announces about its own limits.

The first table holds for every relay; the second is filled by each relay's configuration and travels in `Welcome`,
so that a client paces itself instead of running into refusals.
"""

import msgspec

__all__ = [
    "ANNOUNCED_MESSAGE_BYTES",
    "BLOB_BYTES",
    "FRAMES_PER_MESSAGE",
    "Limits",
    "PAIRS_PER_STOCK",
    "PIPELINE_BYTES",
    "RECEIPTS_FACTOR",
    "SEALED_BYTES",
    "USERS_PER_PAGE",
]

ANNOUNCED_MESSAGE_BYTES = 1 << 20
"""One WebSocket message, both ways; checked before anything is decoded."""
FRAMES_PER_MESSAGE = 256
PIPELINE_BYTES = 64 << 10
"""What a client may send behind its proof before the relay has answered it; kept undecoded."""
RECEIPTS_FACTOR = 4
"""Control mail does not count as requests; it may come at so many times their rate, with so many times their burst."""
SEALED_BYTES = (64 << 10) + (8 << 10)
"""A padded body of 64 KiB, its header with every optional part, and the tag."""
BLOB_BYTES = 64 << 10
"""The sealed client state that the relay keeps for a restore."""
PAIRS_PER_STOCK = 50
"""One-time pairs that a client keeps at the relay, and the most that it may upload in one frame."""
USERS_PER_PAGE = 500


class Limits(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The limits that a relay announces; a rate of 0 means that it has none."""

    message_bytes: int = ANNOUNCED_MESSAGE_BYTES
    frames_per_message: int = FRAMES_PER_MESSAGE
    sealed_bytes: int = SEALED_BYTES
    requests_per_second: float = 10.0
    request_burst: int = 20
    heartbeat_seconds: int = 45
    message_ttl_seconds: int = 30 * 86400
