"""Every limit of the relay, one row each: what an operator may set, what is fixed; and what counts against them.

The rows that may be set are flags, environment variables, keys of the file, and lines of docs/limits.md.
"""

import resource
from collections import Counter, deque
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from math import ceil

from aimessage.clock import Clock
from aimessage.stores.local import KEYS
from aimessage.stores.ports import Budgets
from aimessage.wire.limits import ANNOUNCED_MESSAGE_BYTES, FRAMES_PER_MESSAGE, SEALED_BYTES

__all__ = [
    "Acquaintances",
    "BOUNDS",
    "Bounds",
    "FairWindow",
    "Gate",
    "LIMITS",
    "Limit",
    "LinkBucket",
    "RANGES",
    "RelayLimits",
    "Window",
    "block_of",
]

_BODY = 64 << 10
_MESSAGE = ANNOUNCED_MESSAGE_BYTES
_LEAST = 512 << 10  # agents send lots of up to half of that, and of up to half the frames
RANGES = {
    "body_bytes": (1024, _BODY),
    "message_bytes": (_LEAST, _MESSAGE),
    "message_frames": (FRAMES_PER_MESSAGE // 2, FRAMES_PER_MESSAGE),
}
"""What rows can be set to, beside 0, where the protocol has a bound of its own."""
_DESCRIPTORS_IN_RESERVE = 96  # for the store's files, the listening sockets and the operator's door


@dataclass(frozen=True, slots=True)
class Limit:
    """One row that an operator may set: a field of `RelayLimits`, its environment variable, what it bounds."""

    name: str
    variable: str
    default: str
    help: str


LIMITS = (
    Limit("rate_probes", "RATE_LIMIT_PROBES", "200", "requests a second for /health and /ready together"),
    Limit("rate_metrics", "RATE_LIMIT_METRICS", "10", "requests a second for /metrics"),
    Limit("body_bytes", "BODY_BYTES", str(_BODY), f"bytes of one message's padded text, 1024 to {_BODY}"),
    Limit(
        "message_bytes", "WEBSOCKET_MESSAGE_BYTES", str(_MESSAGE), f"bytes of one WebSocket message, {_LEAST} or more"
    ),
    Limit(
        "message_frames",
        "WEBSOCKET_FRAMES",
        str(FRAMES_PER_MESSAGE),
        f"requests in one WebSocket message, {FRAMES_PER_MESSAGE // 2} or more",
    ),
    Limit("connections", "MAX_CONNECTIONS", "auto", "connections in all; auto: the descriptor limit less a reserve"),
    Limit("connections_per_address", "MAX_CONNECTIONS_PER_ADDRESS", "256", "connections of one address"),
    Limit("unauthenticated", "MAX_UNAUTHENTICATED", "100", "sockets that are not logged in, TLS handshakes included"),
    Limit(
        "login_seconds",
        "LOGIN_SECONDS",
        "10",
        "seconds from the accept to the login, all handshakes included",
    ),
    Limit("heartbeat_seconds", "HEARTBEAT_SECONDS", "45", "seconds until a silent peer is cut off"),
    Limit("stall_seconds", "STALL_SECONDS", "20", "seconds that a peer may leave our write buffer full"),
    Limit("lookups", "LOOKUPS_PER_MINUTE", "60", "bundle look-ups and unknown recipients a minute of one identity"),
    Limit("pairs", "PAIRS_PER_10_MINUTES", "6", "one-time pairs served of one identity in 10 minutes"),
    Limit("registrations", "REGISTRATIONS_PER_10_MINUTES", "30", "registrations in 10 minutes from one address"),
)
"""Each can be set to 0, which switches it off; of body, message and frames the protocol's own bound is left then."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """What the rows are set to; 0 for no limit, `connections` None for the descriptor limit less a reserve."""

    rate_probes: float
    rate_metrics: float
    body_bytes: int
    message_bytes: int
    message_frames: int
    connections: int | None
    connections_per_address: int
    unauthenticated: int
    login_seconds: float
    heartbeat_seconds: float
    stall_seconds: float
    lookups: int
    pairs: int
    registrations: int

    @property
    def sealed_bytes(self) -> int:
        """How many bytes a sealed message may have: its text, header and tag."""
        return SEALED_BYTES - _BODY + (self.body_bytes or _BODY)

    def connection_bound(self) -> int:
        """Return how many connections there may be in all, 0 for any number."""
        if self.connections is not None:
            return self.connections
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return 0 if descriptors == resource.RLIM_INFINITY else max(16, descriptors - _DESCRIPTORS_IN_RESERVE)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The rows. Sizes end in `_bytes`, durations in `_seconds`."""

    request_bytes: int = 16 << 10  # one HTTP request head
    nonce_seconds: float = 60.0
    close_seconds: float = 2.0  # how long a peer may take to answer a close frame
    drain_seconds: float = 4.0
    return_seconds: float = 0.5  # when the first agents may come back to a relay that stops
    return_spread_seconds: float = 2.0  # and over how long all of them are spread, so that it is not stormed
    write_buffer_bytes: int = 256 << 10
    outgoing_message_bytes: int = 512 << 10  # so that buffer and message stay under 1 MiB together
    outgoing_frames: int = 200
    window_bytes: int = 1 << 20  # deliveries that the recipient has not acknowledged yet
    window_entries: int = 1_000
    inbox_frames: int = 512  # requests of one link that wait for their turn
    pairs_low: int = 20
    pairs_seconds: float = 600.0
    lookup_seconds: float = 60.0
    registration_seconds: float = 600.0
    counted_keys: int = KEYS  # addresses or names that one limit remembers; the longest unseen goes first
    known_names: int = 100_000
    acquaintances: int = 100_000
    append_batch: int = 1_024
    expiry_batch: int = 1_000
    expiry_seconds: float = 30.0
    share_seconds: float = 2.0  # between looks how many relays there are
    held_recipients: int = 4_096  # recipients of one link to whom nothing more goes, because a message was refused
    held_seconds: float = 0.5  # and for how long at least: what the client sent before it heard of that
    operator_links: int = 8
    operator_request_bytes: int = 64 << 10
    operator_answer_bytes: int = 1 << 20


BOUNDS = Bounds()


class LinkBucket:
    """The token bucket of one link: *rate* tokens a second, 0 for no limit, and a burst of twice that."""

    __slots__ = ("_at", "_burst", "_clock", "_rate", "_tokens")  # each link has three

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate = rate
        self._burst = max(2 * rate, 1.0)
        self._clock = clock
        self._tokens = self._burst
        self._at = clock.monotonic()

    @property
    def is_boundless(self) -> bool:
        """Whether there is no limit."""
        return not self._rate

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

    def take_all(self, count: int) -> bool:
        """Take *count* tokens if they are there, else none; return whether they were."""
        if self._rate and count:
            now = self._clock.monotonic()
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
            if self._tokens < count:
                return False
            self._tokens -= count
        return True


def block_of(address: str) -> str:
    """Return what limits an address: itself, or the /64 of an IPv6 address, of which a host has as many as it likes."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))
    return str(found)


class Window:
    """At most *limit* events of each key in any *seconds*, 0 for no limit, over all relays on one store."""

    def __init__(self, name: str, limit: int, seconds: float, budgets: Budgets) -> None:
        self._name = name
        self._limit = limit
        self._seconds = seconds
        self._budgets = budgets

    async def wait(self, key: str) -> float:
        """Return 0.0 if one more event is within the limit, else the seconds until it would be; count nothing."""
        return await self._budgets.wait(f"{self._name} {key}", limit=self._limit, seconds=self._seconds)

    async def take(self, key: str) -> float:
        """Count one event; return 0.0 if it is within the limit, else the seconds until one would be."""
        return await self._budgets.take(f"{self._name} {key}", limit=self._limit, seconds=self._seconds)


class FairWindow:
    """At most *rate* events in any second, 0 for no limit, in fair shares among the addresses that ask.

    An address that asks alone gets nine tenths; the last tenth is there for who comes while it floods. Below one event
    a second the window is longer.
    """

    _GRAINS = 50

    def __init__(self, rate: float, clock: Clock) -> None:
        self._clock = clock
        self._rate = rate
        self._limit = max(1, int(rate)) if rate else 0
        self._grain = max(1.0, 1 / rate) / self._GRAINS if rate else 1.0
        self._past: deque[tuple[int, Counter[str], set[str]]] = deque()  # grain, events of each, who asked
        self._events: Counter[str] = Counter()
        self._total = 0
        self._asking: Counter[str] = Counter()  # the grains in which each asked

    def share_with(self, relays: int) -> None:
        """So many relays keep this rate together: each keeps its part, at least one event a second."""
        self._limit = max(1, int(self._rate / max(1, relays))) if self._rate else 0

    def take(self, address: str) -> float:
        """Count one event; return 0.0 if it is within the limit, else the seconds after which to ask again."""
        if not self._limit:
            return 0.0
        grain = int(self._clock.monotonic() / self._grain)
        self._forget(grain - self._GRAINS)
        if not self._past or self._past[-1][0] != grain:
            self._past.append((grain, Counter(), set()))
        _, events, asked = self._past[-1]
        if address not in asked and len(self._asking) < BOUNDS.counted_keys:
            asked.add(address)
            self._asking[address] += 1
        share = max(1, ceil(self._limit * 0.9 / max(1, len(self._asking))))
        if self._total >= self._limit or self._events[address] >= share:
            return max(self._grain, (self._past[0][0] + self._GRAINS + 1) * self._grain - self._clock.monotonic())
        events[address] += 1
        self._events[address] += 1
        self._total += 1
        return 0.0

    def _forget(self, before: int) -> None:
        while self._past and self._past[0][0] < before:
            _, events, asked = self._past.popleft()
            self._total -= events.total()
            for counted, gone in ((self._events, events), (self._asking, Counter(asked))):
                counted.subtract(gone)
                for address in gone:
                    if counted[address] <= 0:
                        del counted[address]


class Acquaintances:
    """Whom an identity has been told about: writing to them, or looking them up, tells it nothing new.

    Of each pair only its hash is kept, by the interpreter's own key, in two generations of half the bound: what is in
    neither has not been met for longest.
    """

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._old: set[int] = set()

    def meet(self, who: str, whom: str) -> None:
        """*who* knows now that there is *whom*."""
        self._new.add(hash((who, whom)))
        if len(self._new) > BOUNDS.acquaintances // 2:
            self._old, self._new = self._new, set()

    def knows(self, who: str, whom: str) -> bool:
        """Return whether *who* knew that."""
        pair = hash((who, whom))
        return pair in self._new or pair in self._old


class Gate:
    """What is counted against the limits, apart from sockets and the rate of each link."""

    def __init__(self, rate_global: float, limits: RelayLimits, clock: Clock, budgets: Budgets) -> None:
        self.sealed_bytes = limits.sealed_bytes
        self.requests = FairWindow(rate_global, clock)
        self.probes = FairWindow(limits.rate_probes, clock)
        self.pages = FairWindow(limits.rate_metrics, clock)
        self.lookups = Window("lookups", limits.lookups, BOUNDS.lookup_seconds, budgets)
        self.acquaintances = Acquaintances()
        self.pairs = Window("pairs", limits.pairs, BOUNDS.pairs_seconds, budgets)
        self.registrations = Window("registrations", limits.registrations, BOUNDS.registration_seconds, budgets)
