"""`aimessage doctor`: is everything well that messages depend on; a line a check, and what to do."""

from dataclasses import asdict

import click

from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_async

__all__ = ["doctor"]


@click.command(short_help="Check the identity, the vault, the relay and this machine.")
@shared_options
def doctor(shared: Shared) -> int:
    """Check everything that messages depend on; change nothing.

    Each line begins with ok, warn or fail. The exit code is 0 if nothing fails, and 1 if something does.
    """
    return run_async(_examine(shared))


async def _examine(shared: Shared) -> int:
    from aimessage.client.doctor import examine

    screen, failed, warned = shared.screen, 0, 0
    async for check in examine(shared.settings()):
        failed += check.state == "fail"
        warned += check.state == "warn"
        hint = None if check.hint is None else screen.hint(check.hint)
        line = f"{check.state:<5} {check.name}: {check.message}"
        shape = {"v": 1, "type": "check", **asdict(check), "hint": hint}
        screen.show(shape, line + (f"\nhint: {hint}" if hint and check.state != "ok" else ""))
    shape = {"v": 1, "type": "doctor", "ok": not failed, "failures": failed, "warnings": warned}
    screen.show(shape, f"-- {failed} failed, {warned} to look at")
    return 1 if failed else 0
