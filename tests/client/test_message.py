"""What a peer wrote never stops a reader."""

import json

import pytest

from aimessage.client.message import Frame, incoming
from aimessage.e2ee.bodies import Body
from aimessage.types import MessageId, Username


@pytest.mark.parametrize("data", ["[" * 60_000, "NaN", "1e999", '"\\ud800"', "{broken"])
def test_json_that_not_every_reader_can_take_is_shown_as_text(data: str) -> None:
    frame = Frame(1, Username("mallory"), Username("bobby"), MessageId(bytes(16)), "message", 1)
    body = Body("data", bytes(16), 1, 1, data=data)
    message = incoming(frame, body, fingerprint="", trust="first-use", flags=(), redelivered=False)
    assert message.data == data
    json.dumps(message.as_json(), allow_nan=False).encode()
