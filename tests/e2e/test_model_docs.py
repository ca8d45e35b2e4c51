"""What is written for models is true: every command line in it parses, and every command is named."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from aimessage.cli.app import cli
from aimessage.cli.skill import skill_text
from aimessage.errors import AimessageError
from support.commands import Home
from support.reference import PAGE, page

ROOT = Path(__file__).parents[2]
FOR_MODELS = {
    "SKILL.md": ROOT / "src" / "aimessage" / "cli" / "SKILL.md",
    "llms.txt": ROOT / "llms.txt",
    "AGENTS-snippet.md": ROOT / "docs" / "AGENTS-snippet.md",
    "commands.md": PAGE,
    **{f"recipes/{path.name}": path for path in sorted((ROOT / "docs" / "recipes").iterdir())},
}
_ENDS = {"|", "||", ";", "&", "&&", ">", ">>", "<", "<<", "<<<", ")", "#", "2>"}
_WORDS = re.compile(r"\baimessage (?=[a-z-])")


_COMMAND: click.Command = cli


def code_in(path: Path) -> Iterator[str]:
    """Yield what a page shows as code: blocks and spans of Markdown, or the lines of a script."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    if path.suffix not in (".md", ".txt"):
        yield from text.splitlines()
        return
    blocks = re.split(r"^```\w*$", text, flags=re.MULTILINE)
    for prose in blocks[::2]:
        yield from re.findall(r"`([^`\n]+)`", prose)
    for block in blocks[1::2]:
        yield from re.sub(r"(<<'END')\n.*?\nEND$", r"\1", block, flags=re.MULTILINE | re.DOTALL).splitlines()


def command_lines(path: Path) -> list[list[str]]:
    """Return the arguments of each aimessage command that a page shows."""
    found = []
    for line in code_in(path):
        for match in _WORDS.finditer(line):
            rest = line[match.end() :]
            for quote in "\"'":  # the command stands in a quoted text, and ends with it
                if line[: match.start()].count(quote) % 2:
                    rest = rest.partition(quote)[0]
            lexer = shlex.shlex(rest, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words = []
            try:
                for word in lexer:
                    if word in _ENDS or set(word) <= set("();<>|&"):
                        break
                    words.append(word)
            except ValueError:  # the line goes on in a quote: what stands before it is enough
                pass
            found.append([word.replace("$", "x") for word in words if not word.endswith("…")])
    return found


def parse(arguments: list[str]) -> None:
    """Return nothing if the real command line understands *arguments*. Raises click.UsageError, AimessageError."""
    with click.Context(cli, info_name="aimessage") as context:
        command, rest = _COMMAND, list(arguments)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            child = command.get_command(context, rest[0])
            if child is None:
                raise click.UsageError(f"no such command {rest[0]!r}")
            command, rest = child, rest[1:]
        if not isinstance(command, click.Group) and rest and rest != ["--help"]:
            command.make_context("aimessage", rest, parent=context)


@pytest.mark.parametrize("name", FOR_MODELS)
def test_every_command_line_parses(name: str) -> None:
    lines = command_lines(FOR_MODELS[name])
    for arguments in lines:
        try:
            parse(arguments)
        except (click.UsageError, AimessageError) as problem:
            pytest.fail(f"{name} shows `aimessage {shlex.join(arguments)}`: {problem}")


def test_the_command_lines_are_found_and_a_wrong_one_would_fail() -> None:
    skill = command_lines(FOR_MODELS["SKILL.md"])

    assert ["send", "--to", "worker-1", "-m", "-"] in skill
    assert len(skill) > 20
    for wrong in (["dance"], ["send", "--wobble"], ["inbox", "--limit", "many"], ["listen", "--timeout", "soon"]):
        with pytest.raises((click.UsageError, AimessageError)):
            parse(wrong)


@pytest.mark.parametrize("name", ["SKILL.md", "commands.md"])
def test_every_command_is_named(name: str) -> None:
    text = FOR_MODELS[name].read_text(encoding="utf-8")

    assert [command for command in cli.commands if f"aimessage {command}" not in text] == []


def test_the_reference_is_what_the_commands_say_of_themselves() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: PYTHONPATH=src:tests python -m support.reference"


def test_the_skill_ships_with_the_package_and_is_printed_as_it_is(home: Home) -> None:
    assert home.run("skill").ok().text.rstrip("\n") == FOR_MODELS["SKILL.md"].read_text(encoding="utf-8").rstrip("\n")
    assert skill_text().startswith("---\nname: aimessage\ndescription: ")


def test_a_skill_is_short_enough_to_be_read() -> None:
    assert len(skill_text()) < 6_000  # about 1 500 tokens


def test_every_link_for_models_leads_somewhere() -> None:
    for path in FOR_MODELS.values():
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
