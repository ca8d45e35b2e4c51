"""What the relay counts about itself, and the page that Prometheus reads. Never a name, an id or an address.

Counts are plain integers, because they are made for each message; prometheus-client writes the page from them. Each
relay has a registry of its own, so that two in one process do not add up. Each metric is described in
docs/monitoring.md.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from aimessage.wire.frames import Accepted, BundleAnswer, Deliver, Refused, RelayFrame

__all__ = ["CONTENT_TYPE", "Gauges", "Histogram", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COMMIT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DELIVERY_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_OUTCOMES = ("accepted", "duplicate", "delivered", "acknowledged")


class Histogram:
    """Durations in seconds, in buckets. One thread observes; any may read."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count one duration, or several that are equal; a clock that was set back makes none below zero."""
        seconds = max(0.0, seconds)
        self._counts[bisect_left(self._bounds, seconds)] += times
        self.seconds += seconds * times

    @property
    def count(self) -> int:
        """How many durations were observed."""
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Return each upper bound with how many were at or below it, as Prometheus has them."""
        below, found = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), list(self._counts), strict=True):
            below += count
            found.append((bound, float(below)))
        return found

    def quantile(self, share: float) -> float | None:
        """Return the bound of the bucket in which *share* of all durations is reached; None above all, or for none."""
        wanted = share * self.count
        for bound, below in zip(self._bounds, [below for _, below in self.buckets()], strict=False):
            if below >= wanted > 0:
                return bound
        return None


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is so at the moment of a page. *unready*: why /ready says no, "" if it says yes."""

    links: int
    strangers: int
    mailbox_entries: int
    mailbox_bytes: int
    unready: str


class Metrics:
    """All that one relay counts. Everything but `committed` belongs to the event loop."""

    def __init__(self) -> None:
        self.connections = 0
        self.messages: Counter[str] = Counter(dict.fromkeys(_OUTCOMES, 0))
        self.messages_refused: Counter[str] = Counter()
        self.requests_refused: Counter[str] = Counter()
        self.limits: Counter[str] = Counter()
        self.bundles: Counter[str] = Counter({"yes": 0, "no": 0})
        self.commits = Histogram(_COMMIT_BOUNDS)
        self.deliveries = Histogram(_DELIVERY_BOUNDS)
        self._frames_in: Counter[type] = Counter()
        self._frames_out: Counter[type] = Counter()

    def connected(self) -> None:
        """A WebSocket was opened."""
        self.connections += 1

    def received(self, frames: Iterable[object]) -> None:
        """*frames* came in on a link."""
        counts = self._frames_in
        for frame in frames:  # Counter.update costs three times as much for the one or two that there are
            counts[type(frame)] += 1

    def sent(self, frames: Collection[RelayFrame]) -> None:
        """*frames* go out on a link."""
        kinds = list(map(type, frames))
        for kind in set(kinds):  # one, nearly always
            count = kinds.count(kind)
            self._frames_out[kind] += count
            if kind is Deliver:
                self.messages["delivered"] += count
            elif kind is Refused:
                self.requests_refused.update(frame.code for frame in frames if isinstance(frame, Refused))
            elif kind is BundleAnswer:
                self.bundles.update(
                    "yes" if frame.pair else "no" for frame in frames if isinstance(frame, BundleAnswer)
                )

    def posted(self, answers: Collection[RelayFrame]) -> None:
        """Posts were answered with *answers*."""
        repeated = [answer.duplicate for answer in answers if isinstance(answer, Accepted)]
        self.messages["duplicate"] += (duplicates := sum(repeated))
        self.messages["accepted"] += len(repeated) - duplicates
        if len(repeated) < len(answers):
            self.messages_refused.update(answer.code for answer in answers if isinstance(answer, Refused))

    def acknowledged(self, count: int) -> None:
        """*count* entries were acknowledged and deleted."""
        self.messages["acknowledged"] += count

    def delivered(self, frames: Iterable[RelayFrame], now_ms: int) -> None:
        """*frames* were just written to a link that had no older mail to catch up with."""
        taken = Counter([frame.accepted_at for frame in frames if isinstance(frame, Deliver)])
        for accepted_at, times in taken.items():  # what came together was taken together
            self.deliveries.observe((now_ms - accepted_at) / 1000, times)

    def limit(self, name: str) -> None:
        """The limit *name*, a word of ours, has kept somebody from something."""
        self.limits[name] += 1

    def committed(self, seconds: float) -> None:
        """The store's writer, in its thread: one commit took so long, sync included."""
        self.commits.observe(seconds)

    def page(self, gauges: Gauges) -> bytes:
        """Return the page that Prometheus reads."""
        registry = CollectorRegistry()
        registry.register(_Page(self, gauges))
        ProcessCollector(registry=registry)
        return generate_latest(registry)

    def summary(self, gauges: Gauges) -> dict[str, object]:
        """Return the same for a person, as JSON can hold it; durations in seconds."""
        return {
            "ready": not gauges.unready,
            "reason": gauges.unready or None,
            "connections": {"open": gauges.links, "not_logged_in": gauges.strangers, "ever": self.connections},
            "mailboxes": {"messages": gauges.mailbox_entries, "bytes": gauges.mailbox_bytes},
            "messages": {**self.messages, "refused": dict(self.messages_refused)},
            "limits_hit": dict(self.limits),
            "bundles_served": {"with_pair": self.bundles["yes"], "without_pair": self.bundles["no"]},
            "commit_seconds": _spread(self.commits),
            "delivery_seconds": _spread(self.deliveries),
        }

    def frames(self) -> Iterator[tuple[str, str, int]]:
        """Yield direction, kind and count of all frames."""
        for direction, counts in (("in", self._frames_in), ("out", self._frames_out)):
            for kind, count in list(counts.items()):
                yield direction, kind.__name__, count


class _Page:
    """What prometheus-client asks for the metrics of one page."""

    def __init__(self, metrics: Metrics, gauges: Gauges) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        metrics, gauges = self._metrics, self._gauges
        links = {"logged_in": gauges.links - gauges.strangers, "not_logged_in": gauges.strangers}
        yield _gauge("connections", "Open WebSockets.", links)
        yield _counter("connections_opened", "WebSockets that were ever opened.", {"": metrics.connections}, "")
        frames = CounterMetricFamily("aimessage_frames", "Frames on all links.", labels=["direction", "kind"])
        for direction, kind, count in metrics.frames():
            frames.add_metric([direction, kind], count)
        yield frames
        yield _counter("messages", "Messages by what became of them.", metrics.messages, "outcome")
        yield _counter("messages_refused", "Messages that were not accepted.", metrics.messages_refused, "code")
        yield _counter("requests_refused", "Requests of any kind refused.", metrics.requests_refused, "code")
        yield _counter("limits_hit", "How often a limit said no.", metrics.limits, "limit")
        yield _counter("bundles_served", "Key bundles served, by whether a pair was.", metrics.bundles, "pair")
        yield _histogram("commit_seconds", "How long one commit of the store took, sync included.", metrics.commits)
        yield _histogram("delivery_seconds", "From taking a message to writing it to a link.", metrics.deliveries)
        yield _gauge("mailbox_entries", "Messages in all mailboxes.", {"": gauges.mailbox_entries})
        yield _gauge("mailbox_bytes", "Sealed bytes in all mailboxes.", {"": gauges.mailbox_bytes})
        yield _gauge("ready", "Whether /ready says yes.", {"": int(not gauges.unready)})


def _counter(name: str, text: str, counts: Mapping[str, int], label: str) -> CounterMetricFamily:
    family = CounterMetricFamily(f"aimessage_{name}", text, labels=[label] if label else [])
    for value, count in list(counts.items()):
        family.add_metric([value] if label else [], count)
    return family


def _gauge(name: str, text: str, values: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"aimessage_{name}", text, labels=[] if "" in values else ["state"])
    for label, value in values.items():
        family.add_metric([label] if label else [], value)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"aimessage_{name}", text, buckets=histogram.buckets(), sum_value=histogram.seconds)


def _spread(histogram: Histogram) -> dict[str, float | int | None]:
    p50, p99 = histogram.quantile(0.5), histogram.quantile(0.99)
    return {"count": histogram.count, "p50_at_most": p50, "p99_at_most": p99}
