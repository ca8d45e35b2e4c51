"""The error tree: what travels as a code comes back as the same error."""

from datetime import timedelta

import pytest

from aimessage import errors
from aimessage.errors import Denied, InvalidInput, TextNotAllowed, error_from_code

LEAVES = [getattr(errors, name) for name in errors.__all__ if name[0].isupper() and name != "TextNotAllowed"]


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_a_code_names_its_error(kind: type[errors.AimessageError]) -> None:
    error = error_from_code(kind.code, "what happened", retry_after=timedelta(seconds=2))

    assert type(error) is kind
    assert (str(error), error.retry_after, error.hint) == ("what happened", timedelta(seconds=2), kind.default_hint)


def test_a_code_of_a_later_version_is_a_denial() -> None:
    assert type(error_from_code("of_a_later_version", "no")) is Denied


def test_a_refused_character_is_named_only_where_it_was_found() -> None:
    error = TextNotAllowed("not allowed", index=3, code_point=0x1F600, hint="leave it out")

    assert (error.index, error.code_point, error.hint) == (3, 0x1F600, "leave it out")
    assert type(error_from_code(TextNotAllowed.code, "no")) is InvalidInput
