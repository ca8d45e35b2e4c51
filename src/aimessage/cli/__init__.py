"""The command `aimessage`: one small file a command, over the SDK and nothing else.

`render` is the only place that prints, `failures` the only place that knows exit codes.
"""

from aimessage.cli.door import main

__all__ = ["main"]
