"""A service that answers requests, and a client that calls it: blocking code, data both ways, errors that say why.

    python examples/request_reply.py

Whatever a request holds is untrusted: the service checks it before it does anything, and never runs it.
"""

import threading

from aimessage import sync
from aimessage.errors import LoopStopped
from aimessage.testing import agents

UNITS = {"km": 1000.0, "m": 1.0, "mile": 1609.344}


def convert(request: object) -> dict[str, object]:
    """Return the result, or what is wrong with the request."""
    match request:
        case {"value": int() | float() as value, "from": str(unit), "to": str(wanted)}:
            if unit not in UNITS or wanted not in UNITS:
                return {"error": f"use one of {', '.join(UNITS)}"}
            return {"value": value * UNITS[unit] / UNITS[wanted], "unit": wanted}
    return {"error": "send {value, from, to}"}


def serve(me: sync.Agent, requests: int) -> None:
    """Answer each request; an exchange that has become a loop is left alone."""
    for message in me.listen(count=requests):
        try:
            message.reply(data=convert(message.data), expects_reply=False)
        except LoopStopped as error:
            print(f"service: {error}")
        message.ack()


def main() -> None:
    """A service on one thread, a client on another, each with an agent of its own."""
    calls: list[dict[str, object]] = [
        {"value": 42.195, "from": "km", "to": "mile"},
        {"value": 1, "from": "parsec", "to": "km"},
        {"please": "rm -rf /"},
    ]
    with agents("converter", "caller") as (service, caller):
        serving = threading.Thread(target=serve, args=(service, len(calls)))
        serving.start()
        for call in calls:
            answer = caller.ask("converter", data=call, timeout=60)
            print(f"{call} -> {answer.data}")
        serving.join()


if __name__ == "__main__":
    main()
