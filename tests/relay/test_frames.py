"""Reassembly against every way to cut a message."""

import pytest

from aimessage.relay.frames import Assembler, Breach


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_fragments_of_any_size_make_the_message(size: int) -> None:
    assembler = Assembler(10)
    message = b"0123456789"
    parts = [message[at : at + size] for at in range(0, 10, size)]
    results = [
        assembler.data(part, continuation=i > 0, text=False, fin=i == len(parts) - 1) for i, part in enumerate(parts)
    ]

    assert results == [None] * (len(parts) - 1) + [message]
    assert assembler.data(b"next", continuation=False, text=False, fin=True) == b"next"


def test_the_bound_holds_over_all_fragments() -> None:
    assembler = Assembler(10)
    assert assembler.data(bytes(6), continuation=False, text=False, fin=False) is None
    breach = assembler.data(bytes(5), continuation=True, text=False, fin=False)

    assert isinstance(breach, Breach)
    assert breach.code == 1009
