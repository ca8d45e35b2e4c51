"""One message from one command, without an event loop: save, dial, prove, post, settle. The flows are the agent's."""

from datetime import timedelta

from msgspec.structs import replace

from aimessage.client.account import Here, open_here
from aimessage.client.blocking import BlockingReach
from aimessage.client.config import Settings
from aimessage.client.letter import Letter
from aimessage.client.profile import load_profile
from aimessage.client.sender import Sender
from aimessage.client.waiting import Blocking, run_blocking
from aimessage.types import MessageId, message_id_text

__all__ = ["open_blocking", "send_once"]


def open_blocking(settings: Settings) -> tuple[Here, BlockingReach] | None:
    """Open the agent of *settings* and its way to the relay; None: that leads through a proxy, which needs a loop.

    The caller's duty: close both. Raises what `account.open_here` does.
    """
    profile = load_profile(settings)
    route = profile.dialling.route(profile.server)
    if route.proxy is not None:
        return None
    waiting = Blocking()
    here = open_here(profile, settings.passphrase, waiting)
    return here, BlockingReach(here, waiting, route)


def send_once(
    settings: Settings, to: str, letter: Letter, limit: timedelta, *, chosen: bytes | None = None
) -> tuple[str, str, str] | None:
    """Send one message; return its id, its recipient and its fate, or None: this needs the agent and its event loop.

    Nothing is saved or sent then. Under an id that was *chosen* before it is one message, whoever has begun to send it.
    Raises what `Agent.send` does.
    """
    opened = open_blocking(settings)
    if opened is None:
        return None
    here, reach = opened
    try:
        sender = Sender(here, reach)
        draft = sender.draft(to, letter)
        if chosen is not None:
            draft = replace(draft, chosen=MessageId(chosen))
        message_id = sender.save(draft)
        fate = run_blocking(sender.accepted(draft.recipient, message_id, limit))
        return message_id_text(message_id), draft.recipient, fate
    finally:
        reach.close()
        here.close()
