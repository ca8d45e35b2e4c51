"""The relay is blind: its disk, its log and its wire are searched for what only the two ends may know.

A search that finds nothing proves nothing unless it would find something: the same search must find the canaries in
what the recipient read, and the usernames, which the relay does know, on its disk and on the wire.
"""

import asyncio
import base64
import secrets
from collections.abc import Iterator
from pathlib import Path

from aimessage import client
from aimessage.client.config import Settings, load_settings
from aimessage.client.profile import Profile
from aimessage.e2ee.identity import open_account, parse_token
from aimessage.types import Address, SecretBytes
from support.commands import Relay, running_relay
from support.wiretap import Wiretap, tapped

MESSAGES = 2000
PIPELINE = 50


def forms(secret: bytes) -> Iterator[bytes]:
    """Yield *secret* as it stands and in the spellings in which secrets leak."""
    yield secret
    yield secret.hex().encode()
    yield base64.b64encode(secret).rstrip(b"=")[:-1]
    yield base64.b32encode(secret).rstrip(b"=")[:-1].lower()


def secrets_of(profile: Profile, settings: Settings) -> Iterator[bytes]:
    """Yield the token's text and bytes and every key that is derived from it."""
    text = client.token_text(settings)
    token = parse_token(text)
    account = open_account(token, Address(profile.relay_id, profile.username))
    yield text.encode()
    yield text.removeprefix("aim1-").encode()
    names = (getattr(account, name) for name in account.__struct_fields__)
    for secret in (token.secret, *(value for value in names if isinstance(value, SecretBytes))):
        yield from forms(secret.reveal)


async def converse(here: Settings, there: Settings, canaries: list[str]) -> list[str]:
    """Send every canary from *here* to the agent "reader" and return what it read."""
    read: list[str] = []
    async with client.connect(here) as writer, client.connect(there) as reader:

        async def read_all() -> None:
            async for message in reader.listen(count=len(canaries)):
                assert message.text is not None
                read.append(message.text)

        async with asyncio.TaskGroup() as group:
            group.create_task(read_all())
            for start in range(0, len(canaries), PIPELINE):
                batch = canaries[start : start + PIPELINE]
                await asyncio.gather(*(writer.send("canary-reader", text) for text in batch))
    return read


def disk_of(relay: Relay) -> bytes:
    return b"\n".join(path.read_bytes() for path in sorted(relay.db_path.rglob("*")) if path.is_file())


async def test_neither_disk_nor_log_nor_wire_of_the_relay_holds_what_only_the_ends_may_know(tmp_path: Path) -> None:
    canaries = [f"canary {number} {secrets.token_hex(16)}" for number in range(MESSAGES)]
    with running_relay(tmp_path / "relay", "--mailbox-sender-share", "0") as relay:
        async with tapped(relay.port) as wire:
            here, there = (_settings(tmp_path, name, wire) for name in ("canary-writer", "canary-reader"))
            profiles = [await client.register(here, "canary-writer"), await client.register(there, "canary-reader")]
            read = await asyncio.wait_for(converse(here, there, canaries), 200)
        relay.stop()
        places = {"disk": disk_of(relay), "log": relay.log_path.read_bytes(), "wire": wire.everything()}

    assert sorted(read) == sorted(canaries)
    assert b"canary-reader" in places["disk"]
    assert b"canary-reader" in places["wire"]
    needles = [text.split()[-1].encode() for text in canaries]
    needles += [
        secret for end, profile in zip((here, there), profiles, strict=True) for secret in secrets_of(profile, end)
    ]
    assert all(needle in "\n".join(read).encode() for needle in needles[:MESSAGES])
    leaks = [(place, needle) for place, content in places.items() for needle in needles if needle in content]
    assert leaks == []


def _settings(tmp_path: Path, name: str, wire: Wiretap) -> Settings:
    environ = {"AIMESSAGE_HOME": str(tmp_path / name), "AIMESSAGE_SERVER": f"ws://localhost:{wire.port}"}
    return load_settings(environ)
