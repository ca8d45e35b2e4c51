"""The page of the SDK's errors: every exception, its code, its exit code, and whether to try again; one to one."""

from pathlib import Path

from aimessage import errors
from aimessage.cli.failures import EXIT_CODES
from aimessage.errors import AimessageError

PAGE = Path(__file__).parents[2] / "docs" / "sdk.md"
BRANCHES = set(EXIT_CODES)


def leaves() -> list[type[AimessageError]]:
    """Every error that can be raised, in the order of its exit code."""
    named = [getattr(errors, name) for name in errors.__all__ if name[0].isupper()]
    found = [each for each in named if not any(other is not each and issubclass(other, each) for other in named)]
    return sorted(found, key=lambda each: (ended_with(each), each.code))


def ended_with(kind: type[AimessageError]) -> int:
    """The exit code of an error's branch."""
    return next(code for branch, code in EXIT_CODES.items() if issubclass(kind, branch))


def table() -> str:
    """The table as the page shows it; print it to renew the page: `pytest -s`."""
    rows = [f"| `{each.__name__}` | `{each.code}` | {ended_with(each)} | {'yes' if each.retryable else ''} |"
            for each in leaves()]  # fmt: skip
    head = "| exception | `error` | exit code | safe to retry |\n|---|---|---|---|"
    return "\n".join([head, *rows])


def test_the_page_has_every_error_as_it_is() -> None:
    print(table())  # noqa: T201 - to be pasted
    assert table() in PAGE.read_text()


def test_exceptions_and_codes_are_one_to_one() -> None:
    codes = [each.code for each in leaves()]
    assert len(codes) == len(set(codes))
    for each in leaves():
        assert sum(issubclass(each, branch) for branch in BRANCHES - {AimessageError}) == 1, each
