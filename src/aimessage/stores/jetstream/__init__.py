"""The store for several relays: NATS JetStream, which replicates; no file of ours."""

from aimessage.stores.jetstream.access import Access
from aimessage.stores.jetstream.store import JetStreamStore, open_jetstream_store

__all__ = ["Access", "JetStreamStore", "open_jetstream_store"]
