"""From an exception to what the caller sees: message, hint, exit code. The table of exit codes is only here."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from aimessage.errors import (
    AimessageError,
    Broken,
    Denied,
    HumanNeeded,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    OverLimit,
    Temporary,
    TimedOut,
)

if TYPE_CHECKING:
    import click

__all__ = ["EXIT_CODES", "EXIT_HELP", "INTERRUPTED", "Failure", "OutputClosed", "exit_code", "explain"]

EXIT_CODES: Final[dict[type[AimessageError], int]] = {
    InvalidInput: 2,
    NotFound: 3,
    NotAuthenticated: 4,
    Denied: 5,
    HumanNeeded: 6,
    OverLimit: 7,
    Temporary: 75,
    TimedOut: 124,
    Broken: 1,
    AimessageError: 1,  # the root closes the table; no leaf hangs from it directly
}
INTERRUPTED: Final = 130
"""What a shell expects of a command that Ctrl-C ended."""

EXIT_HELP: Final = """\
Exit codes:
  0    ok
  1    failure: not a relay of ours, a newer vault, our bug
  2    usage: malformed name, empty, not UTF-8, text profile
  3    not found
  4    no identity, or not authenticated
  5    refused, blocked by us, name taken or superseded
  6    a key or a certificate is not what it should be: a human is needed
  7    too large, or over quota
  75   temporary, safe to retry
  124  time-out: nothing came
  130  interrupted
"""


class OutputClosed(Exception):
    """Whoever read our output went away, as `| head -1` does; there is nobody left to tell."""


class Failure(msgspec.Struct, frozen=True):
    """What a failed command says. `retry_after` is in seconds; `to` and `id` name the send that failed."""

    error: str
    message: str
    hint: str | None
    exit_code: int
    retryable: bool = False
    retry_after: float | None = None
    to: str | None = None
    id: str | None = None

    def about(self, recipient: str) -> "Failure":
        """Return this failure as that of the send to *recipient*."""
        return msgspec.structs.replace(self, to=recipient)

    def as_json(self) -> dict[str, object]:
        """Return the error object of `--json`; `to` and `id` appear where they are known."""
        shape: dict[str, object] = {
            "error": self.error,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
            "retry_after": self.retry_after,
        }
        return shape | {key: value for key, value in (("to", self.to), ("id", self.id)) if value is not None}


def exit_code(error: AimessageError) -> int:
    """Return the exit code of the branch that *error* hangs from."""
    return next(code for branch, code in EXIT_CODES.items() if isinstance(error, branch))


def explain(problem: BaseException) -> Failure:
    """Return what to say about *problem*, whatever it is; of a group, its first deliberate error speaks."""
    match problem:
        case AimessageError():
            return _ours(problem)
        case BaseExceptionGroup():
            leaves = list(_leaves(problem))
            return explain(next((leaf for leaf in leaves if isinstance(leaf, AimessageError)), leaves[0]))
        case OSError(strerror=str() as reason):
            place = f" {problem.filename}" if problem.filename else ""
            return Failure(Broken.code, f"cannot use{place or ' a file'}: {reason.lower()}", None, 1)
        case _ if (usage := _as_usage(problem)) is not None:
            return _usage(usage)
        case _:
            return Failure(
                AimessageError.code,
                f"something went wrong inside aimessage ({type(problem).__name__}); this is our bug",
                "run it again with AIMESSAGE_DEBUG=1 and report what it prints",
                1,
            )


def _ours(error: AimessageError) -> Failure:
    return Failure(
        error.code,
        error.message,
        error.hint,
        exit_code(error),
        retryable=error.retryable,
        retry_after=error.retry_after.total_seconds() if error.retry_after is not None else None,
        id=error.message_id,
    )


def _as_usage(problem: BaseException) -> "click.UsageError | None":
    """Return *problem* if it is about the command line; who has not loaded click does not meet one."""
    click = sys.modules.get("click")
    return problem if click is not None and isinstance(problem, click.UsageError) else None


def _usage(error: "click.UsageError") -> Failure:
    message = error.format_message().rstrip(".")
    command = error.ctx.command_path if error.ctx is not None else "aimessage"
    return Failure(InvalidInput.code, message[:1].lower() + message[1:], f"{command} --help", EXIT_CODES[InvalidInput])


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for child in group.exceptions:
        if isinstance(child, BaseExceptionGroup):
            yield from _leaves(child)
        else:
            yield child
