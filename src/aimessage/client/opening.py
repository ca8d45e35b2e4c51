"""`connect`: how a program opens its agent, restored from the environment if it is not on this machine yet."""

import os
from collections.abc import Callable

from aimessage.client.account import open_here
from aimessage.client.agent import Agent
from aimessage.client.config import Settings, load_settings
from aimessage.client.enrolment import restore
from aimessage.client.profile import load_profile
from aimessage.errors import IdentityExists, NoIdentity

__all__ = ["connect"]


class connect:  # noqa: N801 - used as a function, like open()
    """`async with connect(settings) as me:` opens the agent of *settings*, or of the environment.

    An agent that is not on this machine yet is restored if the environment holds its username, server and token.
    *notice* is told what the agent noticed and mended by itself; without it, the log is.

    Raises NoIdentity and what `restore` raises.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        agent: str | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        settings = settings or load_settings(os.environ, agent=agent)
        self._settings = settings.telling(notice or settings.dialling.notice)
        self._notice = notice
        self._agent: Agent | None = None

    async def __aenter__(self) -> "Agent":
        settings = self._settings
        try:
            profile = load_profile(settings)
        except NoIdentity:
            given = {
                "AIMESSAGE_USERNAME": settings.username,
                "AIMESSAGE_TOKEN": settings.token,
                "AIMESSAGE_SERVER": settings.server,
            }
            missing = [name for name, value in given.items() if value is None]
            if settings.token is not None and missing:
                raise NoIdentity("the token alone restores nothing", hint=f"set {' and '.join(missing)} too") from None
            if missing:
                raise
            try:
                profile = await restore(settings, settings.username or "")
            except IdentityExists:  # another command of this agent restored it meanwhile
                profile = load_profile(settings)
        self._agent = Agent(open_here(profile, settings.passphrase), notice=self._notice)
        return self._agent

    async def __aexit__(self, kind: object, *_: object) -> None:
        if self._agent is not None:
            if kind is None and self._agent.is_connected:
                await self._agent.flush()
            self._agent.close()
