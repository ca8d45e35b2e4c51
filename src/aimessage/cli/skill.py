"""`aimessage skill`: what a language model should know to use this command well; the same text ships as SKILL.md."""

import click

from aimessage.cli.options import Shared, shared_options

__all__ = ["skill", "skill_text"]


@click.command(short_help="Print instructions for a language model that uses this command.")
@shared_options
def skill(shared: Shared) -> None:
    """Print the instructions for a language model.

    \b
      aimessage skill > .claude/skills/aimessage/SKILL.md
    """
    shared.screen.verbatim(skill_text().strip("\n"))


def skill_text() -> str:
    """Return the text of SKILL.md as it ships with the package."""
    from importlib.resources import files

    return (files("aimessage.cli") / "SKILL.md").read_text(encoding="utf-8")
