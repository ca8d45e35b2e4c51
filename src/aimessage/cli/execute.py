"""One command run for one message: no shell, the text on standard input, the rest in the environment."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimessage.client import Message

__all__ = ["environment", "execute"]

_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TERM", "SHELL")
_OURS = ("AIMESSAGE_HOME", "AIMESSAGE_AGENT", "AIMESSAGE_SERVER", "AIMESSAGE_CA_FILE")
_WAY = (  # without these a handler could not answer: the relay may lie behind a proxy or a private authority
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "http_proxy", "https_proxy", "HTTPS_PROXY"),
    *("all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"),
)
_FIELDS = ("id", "from", "from_fingerprint", "from_trust", "thread", "reply_to", "sent_at", "kind", "hops")


def environment(message: "Message", outer: Mapping[str, str]) -> dict[str, str]:
    """Return what the command sees: the usual few variables, the agent's, and the message's fields; no secret."""
    kept = {name: outer[name] for name in (*_PASSED_ON, *_OURS, *_WAY) if name in outer}
    shape = message.as_json()
    fields = {f"AIMESSAGE_MESSAGE_{name.upper()}": shape[name] for name in _FIELDS}
    told = {name: str(value) for name, value in fields.items() if value is not None}
    told["AIMESSAGE_MESSAGE_EXPECTS_REPLY"] = "1" if message.expects_reply else "0"
    return kept | told | {"AIMESSAGE_MESSAGE_REDELIVERED": "1" if message.redelivered else "0"}


async def execute(
    message: "Message", argv: list[str], limit: timedelta, agent: str, *, to_stderr: bool = False
) -> str | None:
    """Run *argv* for *message*, as *agent*; return None if it exited with 0, or what went wrong in one phrase.

    With *to_stderr* what it prints goes to our stderr: our stdout is JSON.
    """
    body = message.text if message.text is not None else json.dumps(message.data, ensure_ascii=False)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=sys.stderr if to_stderr else None,
            env=environment(message, os.environ) | {"AIMESSAGE_AGENT": agent},
            start_new_session=True,
        )
    except OSError as error:
        return f"{argv[0]} cannot be run: {(error.strerror or 'unknown').lower()}"
    try:
        async with asyncio.timeout(limit.total_seconds()):
            await process.communicate(body.encode())
    except TimeoutError:
        return "the command took too long"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
    return None if process.returncode == 0 else f"the command exited with {process.returncode}"
