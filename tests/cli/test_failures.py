import io

import click
import pytest

from aimessage import errors
from aimessage.cli.failures import EXIT_CODES, EXIT_HELP, INTERRUPTED, exit_code, explain
from aimessage.errors import AimessageError, RateLimited, RecipientUnknown, TextNotAllowed


def tree(root: type[AimessageError] = AimessageError) -> list[type[AimessageError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in tree(child))]


def made(kind: type[AimessageError]) -> AimessageError:
    if issubclass(kind, TextNotAllowed):
        return kind("no", index=0, code_point=0x1F600)
    return kind("no")


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.code)
def test_each_error_has_exactly_one_branch_and_so_one_exit_code(kind: type[AimessageError]) -> None:
    branches = [branch for branch in EXIT_CODES if issubclass(kind, branch) and branch is not AimessageError]

    assert len(branches) == (0 if kind is AimessageError else 1)
    assert exit_code(made(kind)) == EXIT_CODES[branches[0] if branches else AimessageError]


def test_codes_name_one_error_each() -> None:
    codes = [kind.code for kind in tree()]

    assert len(set(codes)) == len(codes)
    assert len(codes) == len([name for name in errors.__all__ if name[0].isupper()])


def test_the_help_names_every_exit_code_and_no_other() -> None:
    printed = {int(line.split()[0]) for line in EXIT_HELP.splitlines()[1:]}

    assert printed == {0, INTERRUPTED} | set(EXIT_CODES.values())


def test_the_json_shape_is_the_documented_one() -> None:
    failure = explain(RecipientUnknown("nobody is registered as bob"))

    assert failure.as_json() == {
        "error": "recipient_unknown",
        "message": "nobody is registered as bob",
        "hint": "aimessage users --all",
        "retryable": False,
        "retry_after": None,
    }


def test_a_group_speaks_with_its_first_deliberate_error() -> None:
    group = ExceptionGroup("tasks", [ValueError("noise"), ExceptionGroup("inner", [RateLimited("slow down")])])

    assert explain(group).exit_code == 75


def test_an_unexpected_error_keeps_its_text_to_itself() -> None:
    failure = explain(ValueError("aim1-secret"))

    assert failure.exit_code == 1
    assert "secret" not in str(failure)
    assert "ValueError" in failure.message


def test_a_failing_disk_is_one_sentence() -> None:
    failure = explain(PermissionError(13, "Permission denied", "/x/vault.db"))

    assert failure.message == "cannot use /x/vault.db: permission denied"
    assert failure.exit_code == 1


def test_an_unsupported_operation_is_still_explained() -> None:
    assert explain(io.UnsupportedOperation("fileno")).exit_code == 1


def test_a_usage_error_points_at_the_commands_help() -> None:
    context = click.Context(click.Command("send"), info_name="send", parent=click.Context(click.Group("aimessage")))
    failure = explain(click.UsageError("No such option '--tp'.", ctx=context))

    assert failure.exit_code == 2
    assert failure.error == "invalid_input"
    assert failure.message == "no such option '--tp'"
    assert failure.hint is not None and failure.hint.endswith("send --help")
