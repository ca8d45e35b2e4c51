"""An acknowledgement of NATS is worth what its nodes do: sync each write, in as many copies as were asked for.

A client cannot see whether a node syncs; its monitoring tells (`sync_always`; `sync_interval` reads two minutes all
the same). So each node of JetStream has to be asked, and one that cannot be asked counts as one that does not.
"""

import asyncio
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import TYPE_CHECKING

import nats.errors

from aimessage.errors import ConfigInvalid, RelayUnavailable
from aimessage.stores.jetstream.access import Access, connect
from aimessage.stores.jetstream.bus import Bus

if TYPE_CHECKING:
    from nats.aio.msg import Msg

__all__ = ["require_durability"]

_ANSWER_SECONDS = 5.0
_ANSWER_BYTES = 4 << 20
_MEND_SYNC = "write into each node's configuration: jetstream { sync_interval: always }"
_MEND_MONITOR = (
    "write into each node's configuration: http: 127.0.0.1:8222, and name each node with --nats-monitor"
    " http://HOST:8222; or give the system account's credentials with --nats-system-creds"
)
_MEND_SYSTEM = (
    'write into each node\'s configuration: accounts { SYS { users: [{ user: sys, password: "…" }] } } and'
    " system_account: SYS, and a line user sys PASSWORD into the file of --nats-system-creds"
)
_EVERY_NODE = "$SYS.REQ.SERVER.PING.VARZ"
_OR = "; or run with --unsafe-durability, and a power cut may lose what was acknowledged"


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    syncs: bool
    cluster_size: int


async def require_durability(bus: Bus, access: Access, streams: Sequence[str], *, replicas: int) -> None:
    """Require that every node syncs each write, and that each stream has *replicas* copies.

    Raises ConfigInvalid, with what would mend it; RelayUnavailable: NATS does not answer.
    """
    holders = await _copies(bus, streams, replicas)
    if not access.monitors and access.system is None:
        raise ConfigInvalid(
            "whether NATS syncs what it acknowledges cannot be confirmed without its monitoring",
            hint=_MEND_MONITOR + _OR,
        )
    nodes = [*await asyncio.gather(*(_ask(monitor, access) for monitor in access.monitors))]
    if access.system is not None:
        nodes += await _ask_all(access, holders)
    for node in nodes:
        if not node.syncs:
            raise ConfigInvalid(f"the NATS node {node.name} acknowledges what it has not synced", hint=_MEND_SYNC + _OR)
    asked = {node.name for node in nodes}
    size = max(node.cluster_size for node in nodes)
    if missing := sorted(holders - asked):
        raise ConfigInvalid(
            f"the NATS node {missing[0]} holds a stream, and nothing that was given answers for it",
            hint=_MEND_MONITOR + _OR,
        )
    if len(asked) < size:
        raise ConfigInvalid(
            f"JetStream has {size} nodes, and {len(asked)} of them could be asked", hint=_MEND_MONITOR + _OR
        )


async def _copies(bus: Bus, streams: Sequence[str], replicas: int) -> set[str]:
    """Return the names of the nodes that hold a stream. Raises ConfigInvalid: one has too few copies."""
    holders: set[str] = set()
    for name in streams:
        info = await bus.info(name)
        config, cluster = info.get("config"), info.get("cluster")
        if isinstance(cluster, dict) and not cluster.get("leader"):
            raise RelayUnavailable(f"the stream {name} of NATS has no leader now", hint="start it again")
        there = {str(cluster.get("leader"))} if isinstance(cluster, dict) and cluster.get("leader") else set()
        peers = cluster.get("replicas") if isinstance(cluster, dict) else None
        there |= {str(peer.get("name")) for peer in peers or []}
        wanted = config.get("num_replicas") if isinstance(config, dict) else 0
        if wanted != replicas or len(there) < replicas:
            raise ConfigInvalid(
                f"the stream {name} is configured for {wanted} copies and has {len(there)}; --replicas asks for"
                f" {replicas}",
                hint=f"nats stream edit {name} --replicas {replicas}, with as many nodes running{_OR}",
            )
        holders |= there
    return holders


async def _ask(monitor: str, access: Access) -> _Node:
    try:
        varz = await asyncio.to_thread(_fetch, f"{monitor.rstrip('/')}/varz", access)
        return _node(varz)
    except (OSError, ValueError, HTTPException, TypeError, urllib.error.URLError) as error:
        raise ConfigInvalid(
            f"the monitoring of NATS at {monitor} does not answer: {error}", hint=_MEND_MONITOR + _OR
        ) from None


async def _ask_all(access: Access, holders: set[str]) -> list[_Node]:
    """Return what the nodes say to the system account, until all *holders* and their fellows have, or for a while."""
    try:
        client = await connect(replace(access, credentials=access.system))
    except RelayUnavailable as error:
        raise ConfigInvalid(
            f"the system account of NATS cannot be used: {error.message}", hint=_MEND_SYSTEM + _OR
        ) from None
    nodes: dict[str, _Node] = {}
    try:
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox)
        await client.publish(_EVERY_NODE, b"", reply=inbox)
        async with asyncio.timeout(_ANSWER_SECONDS):
            while holders - nodes.keys() or len(nodes) < max((node.cluster_size for node in nodes.values()), default=1):
                node = _told(await answers.next_msg(timeout=_ANSWER_SECONDS))
                if node is not None:
                    nodes[node.name] = node
    except (TimeoutError, nats.errors.Error):  # who has not answered is found missing by the caller
        pass
    finally:
        await asyncio.shield(client.close())
    if not nodes:
        raise ConfigInvalid("no NATS node answers as it does to the system account", hint=_MEND_SYSTEM + _OR)
    return list(nodes.values())


def _told(answer: "Msg") -> _Node | None:
    """Return the node that an answer describes, None if it has no JetStream. Raises ConfigInvalid: it is no answer."""
    if (answer.headers or {}).get("Status"):
        raise ConfigInvalid(
            "the file of --nats-system-creds is not for the system account of NATS", hint=_MEND_SYSTEM + _OR
        )
    try:
        varz = json.loads(answer.data).get("data")
        return _node(varz) if isinstance(varz, dict) and _part(_part(varz, "jetstream"), "config") else None
    except (ValueError, AttributeError):
        raise ConfigInvalid("a NATS node answers what is no JSON object", hint=_MEND_SYSTEM + _OR) from None


def _fetch(url: str, access: Access) -> object:
    if not url.startswith(("http://", "https://")):
        raise ValueError("it is no http or https address")
    authority = access.certificate_authority
    context = None
    if url.startswith("https://"):
        context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS, context=context) as answer:  # noqa: S310  # as above
        return json.loads(answer.read(_ANSWER_BYTES))


def _node(varz: object) -> _Node:
    if not isinstance(varz, dict) or not isinstance(varz.get("server_name"), str):
        raise ValueError("it is no NATS server")
    jetstream = _part(varz, "jetstream")
    size = _part(jetstream, "meta").get("cluster_size", 1)
    return _Node(
        varz["server_name"],
        _part(jetstream, "config").get("sync_always") is True,
        size if isinstance(size, int) else 1,
    )


def _part(table: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = table.get(name)
    return part if isinstance(part, dict) else {}
