"""Making the streams, or requiring that they are as this relay needs them."""

from aimessage.errors import ConfigInvalid, RelayUnavailable
from aimessage.stores.jetstream.bus import Bus, Reply
from aimessage.stores.jetstream.layout import BUDGETS, HERE, PAIRS, RECORDS, mail_stream

__all__ = ["ensure_streams", "stream_names"]

_NOT_NOW = 503
_STORE_NOT_READY = 10049
_SECOND = 1_000_000_000
_PRESENCE_SECONDS = 60
_BUDGET_SECONDS = 3_600
_UNCHANGEABLE = ("storage", "retention")
_NEEDED = ("discard", "subjects", "max_msgs", "max_bytes", "max_age", "max_msgs_per_subject", "allow_msg_ttl")


def stream_names(partitions: int) -> list[str]:
    """Return the names of the streams on disk."""
    return [RECORDS, PAIRS, *(mail_stream(partition) for partition in range(partitions))]


async def ensure_streams(bus: Bus, names: list[str], *, replicas: int) -> None:
    """Make each stream that is not there. Raises ConfigInvalid: one is there and cannot be used."""
    for name in names:
        wanted = _config(name, replicas)
        reply = await bus.api_or_error(f"STREAM.INFO.{name}", {})
        if "error" in reply:
            reply = await bus.api_or_error(f"STREAM.CREATE.{name}", wanted)
        _require(name, wanted, reply)


def _require(name: str, wanted: dict[str, object], reply: Reply) -> None:
    error, config = reply.get("error"), reply.get("config")
    if isinstance(error, dict) or not isinstance(config, dict):
        reason = error.get("description") if isinstance(error, dict) else "no configuration"
        if isinstance(error, dict) and _passes(error):
            raise RelayUnavailable(f"NATS cannot say yet what the stream {name} is: {reason}", hint="start it again")
        raise ConfigInvalid(
            f"the stream {name} cannot be had: {reason}",
            hint="JetStream of NATS 2.12 or later is needed on as many nodes as --replicas says",
        )
    for key in (*_UNCHANGEABLE, *_NEEDED):
        if key in wanted and config.get(key) != wanted[key]:
            raise ConfigInvalid(
                f"the stream {name} has {key} {config.get(key)!r}, and the relay needs {wanted[key]!r}",
                hint=f"nats stream edit {name}, or give the relay an account of its own",
            )


def _passes(error: dict[str, object]) -> bool:
    """Return whether the engine may say otherwise in a moment: no leader yet, a disk not ready, a node not heard of."""
    is_offline = "offline" in str(error.get("description"))
    return error.get("code") == _NOT_NOW or error.get("err_code") == _STORE_NOT_READY or is_offline


def _config(name: str, replicas: int) -> dict[str, object]:
    config: dict[str, object] = {
        "name": name,
        "subjects": [_subjects(name)],
        "retention": "limits",
        "discard": "new",
        "storage": "file",
        "num_replicas": replicas,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": 1,
        "allow_direct": True,
        "allow_atomic": True,
        "allow_msg_ttl": True,
    }
    if name in (RECORDS, HERE, BUDGETS):
        # A new record takes the place of the old one; a direct read could be of a replica that lags.
        config |= {"discard": "old", "allow_direct": False}
    if name in (HERE, BUDGETS):
        seconds = _PRESENCE_SECONDS if name == HERE else _BUDGET_SECONDS
        config |= {"storage": "memory", "max_age": seconds * _SECOND, "allow_atomic": False, "allow_msg_ttl": False}
    return config


def _subjects(name: str) -> str:
    kind = {RECORDS: "record", PAIRS: "pair", HERE: "here", BUDGETS: "budget"}.get(name)
    return f"aimessage.{kind}.>" if kind else f"aimessage.mail.{name.rpartition('-')[2]}.>"
