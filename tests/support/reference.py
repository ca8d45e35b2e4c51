"""docs/commands.md, made from the commands themselves: `PYTHONPATH=src:tests python -m support.reference`."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from aimessage.cli.app import cli
from aimessage.cli.failures import EXIT_HELP

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
_HEAD = """\
# Commands

Made from the commands' own help by `PYTHONPATH=src:tests python -m support.reference`, and compared with it by
`./test.sh tests/e2e/test_model_docs.py`.
"""


def page() -> str:
    """Return the page as it should be."""
    root = click.Context(cli, info_name="aimessage")
    shared: set[str | None] = {option.name for option in cli.params}
    lines = [_HEAD, "## Options of every command\n", "Before or behind the command; the later one wins.\n"]
    lines += [*_options(root, cli, set()), ""]
    for name, command in cli.commands.items():
        lines += _command(root, name, command, shared)
    lines += ["## Exit codes\n", "```text", *EXIT_HELP.splitlines()[1:], "```"]
    return "\n".join(lines) + "\n"


def _command(parent: click.Context, name: str, command: click.Command, shared: set[str | None]) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    if isinstance(command, click.Group):
        for child, inner in command.commands.items():
            yield from _command(context, child, inner, shared)
        return
    pieces = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    yield f"## {' '.join((context.command_path, *pieces))}\n"
    yield from _prose(inspect.cleandoc(command.help or ""))
    yield from _options(context, command, shared)
    yield ""


def _prose(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b\n"):
            yield from ("```sh", inspect.cleandoc(paragraph.removeprefix("\b\n")), "```", "")
        else:
            yield paragraph.replace("<", "&lt;") + "\n"


def _options(context: click.Context, command: click.Command, shared: set[str | None]) -> Iterator[str]:
    rows = [
        record
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name not in shared
        if (record := parameter.get_help_record(context)) is not None
    ]
    if rows:
        yield "| option | |"
        yield "|---|---|"
        yield from (f"| `{_cell(names)}` | {_cell(told)} |" for names, told in rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
