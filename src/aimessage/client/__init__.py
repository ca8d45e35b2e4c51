"""The SDK: what an agent's machine does. Start at `connect`."""

from aimessage.client.agent import Agent, Sent, UserPresence, connect
from aimessage.client.config import Settings, load_settings
from aimessage.client.enrolment import register, restore, token_text
from aimessage.client.fates import Fate
from aimessage.client.history import Entry
from aimessage.client.letter import Letter
from aimessage.client.message import Message
from aimessage.client.profile import Profile, load_profile
from aimessage.e2ee.text import decode_text, fold, require_clean

__all__ = [
    "Agent", "Entry", "Fate", "Letter", "Message", "Profile", "Sent", "Settings", "UserPresence", "connect",
    "decode_text", "fold", "load_profile", "load_settings", "register", "require_clean", "restore", "token_text",
]  # fmt: skip
