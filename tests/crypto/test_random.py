import pytest

from aimessage.crypto.random import system_entropy


@pytest.mark.parametrize("count", [0, 1, 12, 32, 64])
def test_entropy_has_the_length_that_was_asked_for(count: int) -> None:
    assert len(system_entropy(count)) == count


def test_entropy_does_not_repeat() -> None:
    assert len({system_entropy(32) for _ in range(100)}) == 100
