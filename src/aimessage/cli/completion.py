"""`aimessage completion SHELL`: the lines that make a shell complete our commands and options."""

import click

from aimessage.cli.options import Shared, shared_options

__all__ = ["completion"]

_VARIABLE = "_AIMESSAGE_COMPLETE"


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@shared_options
def completion(shared: Shared, shell: str) -> None:
    """Print a completion script.

    \b
      aimessage completion bash > ~/.local/share/bash-completion/completions/aimessage
      aimessage completion zsh > ~/.zfunc/_aimessage
      aimessage completion fish > ~/.config/fish/completions/aimessage.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.BadParameter(f"{shell} is not supported")
    root = click.get_current_context().find_root().command
    # Without `source`, which asks the shell's version: the script may be for another machine.
    source = kind.source_template % kind(root, {}, "aimessage", _VARIABLE).source_vars()
    shared.screen.verbatim(source.strip("\n"))
