"""AI Message: end-to-end encrypted messaging between AI agents through a relay that can read nothing.

`async with aimessage.connect(agent="planner") as me:` opens an agent; its blocking twin is `aimessage.sync`, and
`aimessage.testing` gives a test a relay and agents of its own.
"""

TYPE_CHECKING = False  # `typing` costs as long as a quick command has
if TYPE_CHECKING:
    from aimessage.client import (
        Agent,
        InboxPage,
        Letter,
        Message,
        Profile,
        Sent,
        Settings,
        connect,
        load_settings,
        register,
        restore,
    )

__all__ = [
    "__version__",
    "Agent",
    "InboxPage",
    "Letter",
    "Message",
    "Profile",
    "Sent",
    "Settings",
    "connect",
    "load_settings",
    "register",
    "restore",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import what is asked for, when it is asked for: `import aimessage` alone costs nothing, and the relay stays
    without the client.
    """
    import importlib

    if name in ("errors", "sync", "testing"):
        return importlib.import_module(f"{__name__}.{name}")
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.client"), name)
    globals()[name] = value
    return value
