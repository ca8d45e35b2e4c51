"""One connection to NATS: requests, conditional writes, atomic batches and reads, each with one kind of trouble.

What may pass by itself (no leader, no answer, no connection) is RelayUnavailable; then a write may or may not have
happened, and only a caller that can repeat it safely may do so. A condition that does not hold is Conflict.
"""

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import nats.errors

from aimessage.crypto.random import system_entropy
from aimessage.errors import RelayUnavailable, StoreDamaged

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

__all__ = ["BATCH_MESSAGES", "Bus", "Conflict", "Found", "Message", "Reply", "expecting"]

Reply = Mapping[str, object]

BATCH_MESSAGES = 500
"""The most messages of one atomic batch; the server allows 1 000."""
_ANSWER_SECONDS = 5.0
_CONFLICTS = frozenset({10071, 10164})  # wrong last sequence, of the stream or of a subject
_ABSENT = frozenset({10037, 10043, 10057})  # no message found: to get, to delete
_LISTED = 100_000  # subjects in one page of a stream's


class Conflict(Exception):
    """What a write was conditioned on does not hold; nothing was written."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be written."""

    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """What stands in a stream."""

    sequence: int
    subject: str
    data: bytes


def expecting(sequence: int, subject: str = "") -> dict[str, str]:
    """Return the condition that the newest message of the subject (or of the pattern *subject*) is *sequence*.

    0: that there is none.
    """
    headers = {"Nats-Expected-Last-Subject-Sequence": str(sequence)}
    if subject:
        headers["Nats-Expected-Last-Subject-Sequence-Subject"] = subject
    return headers


class Bus:
    """Requests over one client, which reconnects by itself."""

    def __init__(self, client: "Client") -> None:
        self.client = client

    async def ask(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, seconds: float = _ANSWER_SECONDS
    ) -> "Msg":
        """Return the answer to one request, which may take *seconds*. Raises RelayUnavailable."""
        self._require_link()
        try:
            return await self.client.request(
                subject, payload, timeout=seconds, headers=dict(headers) if headers else None
            )
        except (nats.errors.Error, OSError) as error:
            raise _unavailable(error) from None

    async def api(self, verb: str, request: Mapping[str, object]) -> Reply | None:
        """Return what JetStream answers, None if the message asked for is not there. Raises RelayUnavailable."""
        reply = await self.api_or_error(verb, request)
        return None if _error_code(reply) in _ABSENT else _good(reply)

    async def api_or_error(self, verb: str, request: Mapping[str, object]) -> Reply:
        """Return what JetStream answers, `error` and all. Raises RelayUnavailable."""
        return _decoded(await self.ask(f"$JS.API.{verb}", json.dumps(request).encode()))

    async def publish(self, messages: Sequence[Message], seconds: float = _ANSWER_SECONDS) -> int:
        """Write *messages*, all to one stream, all or none, in order; return the sequence of the last.

        They are on disk then, and their sequences follow on each other; that may take *seconds*, fewer for a caller
        that tries again. Raises Conflict, RelayUnavailable.
        """
        *others, last = messages
        if not others:
            return _sequence(await self.ask(last.subject, last.data, last.headers, seconds))
        self._require_link()
        batch = {"Nats-Batch-Id": system_entropy(16).hex()}
        try:
            for number, message in enumerate(others, 1):
                headers = {**batch, "Nats-Batch-Sequence": str(number), **message.headers}
                await self.client.publish(message.subject, message.data, headers=headers)
        except (nats.errors.Error, OSError) as error:
            raise _unavailable(error) from None
        commit = {**batch, "Nats-Batch-Sequence": str(len(messages)), "Nats-Batch-Commit": "1", **last.headers}
        return _sequence(await self.ask(last.subject, last.data, commit, seconds))

    async def get(self, stream: str, request: Mapping[str, object]) -> Found | None:
        """Return one message as the stream's leader has it: by `seq`, `last_by_subj` or `next_by_subj`."""
        reply = await self.api(f"STREAM.MSG.GET.{stream}", request)
        if reply is None:
            return None
        message = reply.get("message")
        if not isinstance(message, dict):
            raise StoreDamaged(f"the stream {stream} answers without a message")
        return Found(int(message["seq"]), str(message["subject"]), b64decode(message.get("data", "")))

    async def page(self, stream: str, subject: str, *, after: int, count: int, size_bytes: int) -> list[Found]:
        """Return up to *count* messages above *after* on *subject*, of about *size_bytes*; of any replica.

        A replica may lag: what is missing at the end may still be at the leader. Raises RelayUnavailable.
        """
        self._require_link()
        request = {"seq": after + 1, "next_by_subj": subject, "batch": count, "max_bytes": size_bytes}
        inbox = self.client.new_inbox()
        found: list[Found] = []
        try:
            answers = await self.client.subscribe(inbox)
            try:
                await self.client.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode(), reply=inbox)
                while (message := _found(await answers.next_msg(timeout=_ANSWER_SECONDS))) is not None:
                    found.append(message)
            finally:
                await answers.unsubscribe()
        except (nats.errors.Error, OSError) as error:
            raise _unavailable(error) from None
        return found

    async def delete(self, stream: str, sequence: int) -> bool:
        """Delete one message; return whether it was this call that did. Raises RelayUnavailable."""
        return await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True}) is not None

    async def purge(self, stream: str, subject: str) -> None:
        """Delete every message on *subject*. Raises RelayUnavailable."""
        await self.api(f"STREAM.PURGE.{stream}", {"filter": subject})

    async def info(self, stream: str) -> Reply:
        """Return what the leader says of the stream. Raises RelayUnavailable."""
        return await self.api(f"STREAM.INFO.{stream}", {}) or {}

    async def subjects(self, stream: str, subject: str) -> list[str]:
        """Return the subjects with a message that match *subject*, in any order. Raises RelayUnavailable."""
        names: dict[str, None] = {}
        for page in range(1_000):
            request = {"subjects_filter": subject, "offset": page * _LISTED}
            state = (await self.api(f"STREAM.INFO.{stream}", request) or {}).get("state")
            listed = state.get("subjects") if isinstance(state, dict) else None
            names.update(dict.fromkeys(listed or {}))
            if len(listed or {}) < _LISTED:
                break
        return list(names)

    async def settle(self) -> None:
        """Return when the server has taken all that was sent until now. Raises RelayUnavailable."""
        try:
            await self.client.flush(timeout=int(_ANSWER_SECONDS))
        except (nats.errors.Error, OSError) as error:
            raise _unavailable(error) from None

    def _require_link(self) -> None:
        # Without this the client would keep what it cannot send, and send it long after its caller was refused.
        if not self.client.is_connected:
            raise RelayUnavailable("the relay has no connection to NATS", retry_after=timedelta(seconds=2))


def _found(answer: "Msg") -> Found | None:
    headers = answer.headers or {}
    if headers.get("Status") in ("404", "204"):
        return None
    if "Status" in headers or "Nats-Sequence" not in headers:
        raise _unavailable("an answer without a sequence")
    return Found(int(headers["Nats-Sequence"]), headers["Nats-Subject"], answer.data)


def _unavailable(reason: object) -> RelayUnavailable:
    name = type(reason).__name__ if isinstance(reason, Exception) else str(reason)
    return RelayUnavailable(f"NATS does not answer: {name}", retry_after=timedelta(seconds=2))


def _decoded(answer: "Msg") -> Reply:
    try:
        reply = json.loads(answer.data)
    except ValueError:
        raise _unavailable("an answer that is no JSON") from None
    return reply if isinstance(reply, dict) else {}


def _error_code(reply: Reply) -> int:
    error = reply.get("error")
    return int(error.get("err_code") or error.get("code") or -1) if isinstance(error, dict) else 0


def _good(reply: Reply) -> Reply:
    error = reply.get("error")
    if not isinstance(error, dict):
        return reply
    if _error_code(reply) in _CONFLICTS:
        raise Conflict
    raise RelayUnavailable(f"NATS refuses: {error.get('description')}", retry_after=timedelta(seconds=2))


def _sequence(answer: "Msg") -> int:
    sequence = _good(_decoded(answer)).get("seq")
    if not isinstance(sequence, int):
        raise _unavailable("an acknowledgement without a sequence")
    return sequence
