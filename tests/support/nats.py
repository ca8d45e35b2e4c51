"""A real NATS server with JetStream for tests: one process, on loopback, in a directory of its own."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nats

__all__ = ["NatsServer", "nats_binary"]

_START_SECONDS = 60.0


def nats_binary() -> str:
    """Return the path of the server's binary, which its package put beside this Python."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found, "nats-server is missing: install requirements/dev.txt"
    return found


@dataclass
class NatsServer:
    """One server in *directory*; its port stays the same over restarts."""

    directory: Path
    sync: str = "always"
    extra: str = ""
    port: int = -1
    monitor_port: int = -1
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def monitor(self) -> str:
        """Where its monitoring answers."""
        return f"http://127.0.0.1:{self.monitor_port}"

    def start(self) -> "NatsServer":
        """Start it and wait until it takes connections."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for old in self.directory.glob("*.ports"):
            old.unlink()
        config = self.directory / "nats.conf"
        config.write_text(self._config())
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen([nats_binary(), "-c", str(config)], stdout=log, stderr=log)
        self._learn_ports()
        return self

    def stop(self, *, hard: bool = False) -> None:
        """End it, and wait until it has ended; *hard* with SIGKILL."""
        if self.process is not None:
            (self.process.kill if hard else self.process.terminate)()
            self.process.wait(30)
            self.process = None

    def restart(self, *, hard: bool = False) -> None:
        """End it and start it again on the same port and directory."""
        self.stop(hard=hard)
        self.start()

    async def empty(self, keep: Sequence[str] = ()) -> None:
        """Delete every stream, so that the next test finds nothing."""
        client = await nats.connect(self.url)
        try:
            reply = json.loads((await client.request("$JS.API.STREAM.NAMES", b"", timeout=10)).data)
            names = [name for name in reply.get("streams") or [] if name not in keep]
            await asyncio.gather(*(client.request(f"$JS.API.STREAM.DELETE.{it}", b"", timeout=10) for it in names))
        finally:
            await client.close()

    def _config(self) -> str:
        return "\n".join(
            [
                f'listen: "127.0.0.1:{self.port}"',
                f'http: "127.0.0.1:{self.monitor_port}"',
                f'ports_file_dir: "{self.directory}"',
                f'jetstream {{ store_dir: "{self.directory / "js"}", sync_interval: {self.sync} }}',
                self.extra,
            ]
        )

    def _learn_ports(self) -> None:
        assert self.process is not None
        told = self.directory / f"nats-server_{self.process.pid}.ports"
        until = time.monotonic() + _START_SECONDS
        while not told.exists() or not told.read_text().endswith("}"):
            assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
            assert time.monotonic() < until, "nats-server did not start"
            time.sleep(0.02)
        ports = json.loads(told.read_text())
        self.port = int(ports["nats"][0].rpartition(":")[2])
        self.monitor_port = int(ports["monitoring"][0].rpartition(":")[2])
