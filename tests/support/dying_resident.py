"""A resident that is killed at a chosen commit of its vault: `python -m support.dying_resident HOME AGENT N EDGE`."""

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path

from aimessage.client import Settings
from aimessage.client.resident.door import DOOR, bound, dialling_words
from aimessage.client.resident.resident import Resident
from support.crashing import dying, say


async def main() -> None:
    """Say `ready` and serve until the moment."""
    home, agent, number, edge = sys.argv[1:]
    settings = Settings(home=Path(home), agent=agent)
    (settings.directory / DOOR).unlink(missing_ok=True)
    here = dying(settings, int(number), edge)
    resident = Resident(here, here.profile.server, dialling_words(os.environ), [])
    async with resident.at(bound(str(settings.directory))):
        say("ready")
        await resident.until_over(timedelta(minutes=1))


if __name__ == "__main__":
    asyncio.run(main())
