"""The MCP server of one agent: seven tools over stdio, driven by a host; needs the extra `mcp`."""

__all__: list[str] = []
