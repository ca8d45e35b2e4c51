"""The SDK: what an agent's machine does. Start at `connect`."""

TYPE_CHECKING = False  # `typing` costs as long as a quick command has
if TYPE_CHECKING:
    from aimessage.client.agent import Agent
    from aimessage.client.config import Settings, load_settings
    from aimessage.client.contacts import Contact
    from aimessage.client.deadletters import DeadLetter
    from aimessage.client.enrolment import register, restore, token_text
    from aimessage.client.fates import Fate
    from aimessage.client.history import Entry
    from aimessage.client.letter import Letter
    from aimessage.client.message import Message
    from aimessage.client.opening import connect
    from aimessage.client.presence import UserPresence
    from aimessage.client.profile import Profile, load_profile
    from aimessage.client.reading import InboxPage, Slice
    from aimessage.client.sent import Sent
    from aimessage.e2ee.text import decode_text, fold, needed_joiners, require_clean

__all__ = [
    "Agent", "Contact", "DeadLetter", "Entry", "Fate", "InboxPage", "Letter", "Message", "Profile", "Sent", "Settings",
    "Slice", "UserPresence", "connect", "decode_text", "fold", "load_profile", "load_settings", "needed_joiners",
    "register", "require_clean", "restore", "token_text",
]  # fmt: skip

_HOMES = {
    "agent": ("Agent",),
    "config": ("Settings", "load_settings"),
    "contacts": ("Contact",),
    "deadletters": ("DeadLetter",),
    "enrolment": ("register", "restore", "token_text"),
    "fates": ("Fate",),
    "history": ("Entry",),
    "letter": ("Letter",),
    "message": ("Message",),
    "opening": ("connect",),
    "presence": ("UserPresence",),
    "profile": ("Profile", "load_profile"),
    "reading": ("InboxPage", "Slice"),
    "sent": ("Sent",),
}


def __getattr__(name: str) -> object:
    """Import what is asked for, when it is asked for: a command that sends one message needs no event loop."""
    import importlib

    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None and name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{home}" if home else "aimessage.e2ee.text"), name)
    globals()[name] = value
    return value
