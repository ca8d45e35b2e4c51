"""A supervisor hands out tasks and sees each of them handled, although its worker is killed in the middle of one.

    python examples/supervisor.py

The worker is a process of its own. It acknowledges a task when it is done with it, so the task that it held when it
died comes again, marked `redelivered`, to the process that takes its place; and no task is done twice.
"""

import asyncio
import os
import subprocess
import sys

import aimessage
from aimessage.testing import Network

TASKS = ["fetch", "index", "compress", "upload"]
FATAL = "index"


async def work() -> None:
    """Do one task after the other. The first time it meets the fatal one, it dies with it in hand."""
    async with aimessage.connect(agent="worker") as me:
        async for task in me.listen(manual_ack=True):
            if task.text == FATAL and not task.redelivered:
                os._exit(9)  # as a crash would: nothing is closed, nothing is told
            maybe = ", which somebody may have begun" if task.redelivered else ""
            print(f"worker {os.getpid()}: {task.text}{maybe}", flush=True)
            await task.ack()


async def supervise(network: Network) -> None:
    """Start the worker, and start it again when it ends, until every task has been handled."""
    supervisor = await network.join("supervisor")
    await network.join("worker")

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, __file__, "worker"], env=os.environ | dict(network.environ))

    worker = start()
    handled = asyncio.gather(*(supervisor.send("worker", task, wait_for="handled", timeout=120) for task in TASKS))
    while not handled.done():
        if worker.poll() is not None:
            print(f"supervisor: the worker ended with {worker.returncode}; another takes its place", flush=True)
            worker = start()
        await asyncio.wait({handled}, timeout=0.1)
    print("supervisor:", ", ".join(f"{task} {each.state}" for task, each in zip(TASKS, await handled, strict=True)))
    worker.terminate()
    worker.wait()


async def main() -> None:
    """Run a relay for as long as this takes."""
    async with Network() as network:
        await supervise(network)


if __name__ == "__main__":
    asyncio.run(work() if sys.argv[1:] == ["worker"] else main())
