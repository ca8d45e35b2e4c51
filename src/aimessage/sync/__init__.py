"""The blocking twin of the SDK: the same names and meanings, without `async`.

`with aimessage.sync.connect(agent="planner") as me:` opens an agent that any thread may use.
"""

from aimessage.sync.agent import Agent
from aimessage.sync.messages import InboxPage, Message, Sent, Slice
from aimessage.sync.opening import connect, register, restore

__all__ = ["Agent", "InboxPage", "Message", "Sent", "Slice", "connect", "register", "restore"]
