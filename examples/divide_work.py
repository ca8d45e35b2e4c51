"""Two agents divide work: ada keeps half of the numbers, hands the rest to ben, and puts both results together.

    python examples/divide_work.py

No language model, no relay to start: `aimessage.testing` runs a real one for as long as this takes. Against a relay of
your own it is the same code, with `aimessage.connect(agent="ada")` in place of `agents("ada", "ben")`.
"""

import asyncio

from aimessage import Agent
from aimessage.testing import agents


def primes(first: int, last: int) -> list[int]:
    """The work."""
    return [number for number in range(max(first, 2), last + 1) if all(number % each for each in range(2, number))]


async def ben(me: Agent) -> None:
    """Do what ada asks for, message by message; what is not acknowledged would come again after a crash."""
    async for message in me.listen(count=1, manual_ack=True):
        task = message.data
        assert isinstance(task, dict)
        print(f"ben:  {message.from_} gives me {task['first']} to {task['last']}")
        await message.reply(data={"primes": primes(task["first"], task["last"])}, expects_reply=False)
        await message.ack()


async def ada(me: Agent) -> list[int]:
    """Ask for the upper half, do the lower one meanwhile."""
    asking = asyncio.create_task(me.ask("ben", data={"first": 51, "last": 100}, thread="primes", timeout=60))
    mine = primes(1, 50)
    answer = await asking
    print(f"ada:  I found {len(mine)}; {answer.from_}, whose key is {answer.from_trust}, answered {answer.data}")
    theirs = answer.data["primes"] if isinstance(answer.data, dict) else []
    return mine + [int(number) for number in theirs]


async def main() -> None:
    """Both at once."""
    async with agents("ada", "ben") as (first, second):
        _, found = await asyncio.gather(ben(second), ada(first))
    print(f"both: {len(found)} primes up to 100")


if __name__ == "__main__":
    asyncio.run(main())
