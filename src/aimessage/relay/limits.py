"""Every limit of the relay that is not a setting, one row each, and the token bucket of one link."""

from dataclasses import dataclass

from aimessage.clock import Clock

__all__ = ["BOUNDS", "Bounds", "LinkBucket"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """The rows. Sizes end in `_bytes`, durations in `_seconds`."""

    request_bytes: int = 16 << 10  # one HTTP request head
    unauthenticated_sockets: int = 100
    sockets: int = 20_000
    login_seconds: float = 10.0
    nonce_seconds: float = 60.0
    ping_idle_seconds: float = 25.0  # idle + reply: a dead peer is found in 40 s, under the announced 45
    ping_reply_seconds: float = 15.0
    stall_seconds: float = 20.0  # how long a peer may leave our write buffer full
    close_seconds: float = 2.0  # how long a peer may take to answer a close frame
    drain_seconds: float = 4.0
    write_buffer_bytes: int = 256 << 10
    outgoing_message_bytes: int = 512 << 10  # so that buffer and message stay under 1 MiB together
    outgoing_frames: int = 200
    window_bytes: int = 1 << 20  # deliveries that the recipient has not acknowledged yet
    window_entries: int = 1_000
    inbox_frames: int = 512  # requests of one link that wait for their turn
    pairs_low: int = 20
    pairs_per_target: float = 6.0  # one-time pairs served of one target in `pairs_seconds`; then the last resort
    pairs_seconds: float = 600.0
    probes_per_second: float = 200.0  # /health and /ready, apart from everything else
    known_names: int = 100_000
    append_batch: int = 1_024
    expiry_batch: int = 1_000
    expiry_seconds: float = 30.0
    held_recipients: int = 4_096  # recipients of one link to whom nothing more goes, because a message was refused
    held_seconds: float = 0.5  # and for how long at least: what the client sent before it heard of that
    operator_links: int = 8
    operator_request_bytes: int = 64 << 10
    operator_answer_bytes: int = 1 << 20


BOUNDS = Bounds()


class LinkBucket:
    """The token bucket of one link: *rate* tokens a second, 0 for no limit, and a burst of twice that."""

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate = rate
        self._burst = max(2 * rate, 1.0)
        self._clock = clock
        self._tokens = self._burst
        self._at = clock.monotonic()

    def take(self) -> float:
        """Take one token; return 0.0 if it was there, else the seconds until it will be."""
        if not self._rate:
            return 0.0
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0
