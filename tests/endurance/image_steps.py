"""The steps of the Dockerfile, run without an engine: in bare root file systems, as root, on a Debian machine.

    sudo .venv/bin/python tests/endurance/image_steps.py [--suite trixie] [--bind DIR]...

A Debian of debootstrap with its Python stands in for the base image. RUN, COPY, ENV, WORKDIR and USER are performed as
they stand in the file; then the entry point runs as the image's user on a read-only root with /data as its only place
to write, is asked as HEALTHCHECK asks, registers an agent, is stopped by STOPSIGNAL, and starts again on the same data.
pip inside is configured as it is outside; --bind shows it a directory that the configuration names.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from endurance.relays import say

ROOT = Path(__file__).resolve().parents[2]
PORT = 18_480
DEADLINE_SECONDS = 60
_PACKAGES = "python3,python3-venv,ca-certificates"


@dataclass
class Stage:
    """One FROM: its root file system and what the instructions have said so far."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = "/"
    user: str = "0:0"
    entry: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    stop: str = "SIGTERM"


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, each with its arguments on one line."""
    joined = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


def build(dockerfile: Path, work: Path, binds: list[Path]) -> Stage:
    """Perform every instruction and return the last stage."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for name, words in instructions(dockerfile.read_text()):
        say(f"  {name} {words}"[:150])
        if name == "FROM":
            _, _, alias = words.partition(" AS ")
            root = work / f"stage-{len(stages)}"
            subprocess.run(["cp", "-a", str(work / "base"), str(root)], check=True)
            for bind in binds:
                mount("--bind", "-o", "ro", bind, root / str(bind).lstrip("/"))
            stage = stages[alias or root.name] = Stage(root, {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"})
            continue
        assert stage is not None
        perform(stage, stages, name, words)
    assert stage is not None
    return stage


def perform(stage: Stage, stages: dict[str, Stage], name: str, words: str) -> None:
    """Perform one instruction."""
    match name:
        case "RUN":
            inside(stage, ["/bin/sh", "-c", f"cd {stage.directory} && {words}"], pip=True)
        case "COPY":
            copy(stage, stages, shlex.split(words))
        case "ENV":
            stage.environment |= dict(word.split("=", 1) for word in shlex.split(words))
        case "WORKDIR":
            stage.directory = words
            (stage.root / words.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "USER":
            stage.user = words
        case "ENTRYPOINT":
            stage.entry = json.loads(words)
        case "HEALTHCHECK":
            stage.health = json.loads(words.split("CMD ", 1)[1])
        case "STOPSIGNAL":
            stage.stop = words
        case "VOLUME" | "EXPOSE":
            pass
        case _:
            raise SystemExit(f"this script does not know {name}")


def copy(stage: Stage, stages: dict[str, Stage], words: list[str]) -> None:
    """COPY, from the context or from a stage; directories bring their content."""
    source = ROOT
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")].root
    *names, target = words
    place = stage.root / (target if target.startswith("/") else f"{stage.directory}/{target}").lstrip("/")
    for name in names:
        origin = source / name.lstrip("/")
        if origin.is_dir():
            shutil.copytree(origin, place, symlinks=True, dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
        else:
            to = place / origin.name if target.endswith("/") or place.is_dir() else place
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin, to)


def inside(stage: Stage, command: list[str], *, pip: bool = False, check: bool = True) -> int:
    """Run *command* in the stage's root as its user and return its exit code."""
    outside = {name: value for name, value in os.environ.items() if pip and name.startswith(("PIP_", "SSL_CERT"))}
    environment = [f"{name}={value}" for name, value in (outside | stage.environment).items()]
    done = subprocess.run(
        ["chroot", f"--userspec={stage.user}", str(stage.root), "/usr/bin/env", "-i", *environment, *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if check and done.returncode:
        raise SystemExit(f"failed: {command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode


def bootstrap(base: Path, binds: list[Path], suite: str) -> None:
    """Make the stand-in for the base image, with the mirror and the pip of this machine."""
    mirror = _mirror()
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", suite, base, mirror],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    for name in ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/xdg/pip/constraints.txt",
                 "/etc/ssl/certs/ca-certificates.crt"):  # fmt: skip
        if Path(name).exists():
            (base / name.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, base / name.lstrip("/"))
    for bind in binds:
        (base / str(bind).lstrip("/")).mkdir(parents=True, exist_ok=True)


def _mirror() -> str:
    """Return the mirror of Debian that this machine uses, or that DEBIAN_MIRROR names."""
    if named := os.environ.get("DEBIAN_MIRROR"):
        return named
    places = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    words = [word for place in places if place.is_file() for word in place.read_text().split()]
    found = [word for word in words if word.startswith("http") and word.rstrip("/").endswith("/debian")]
    if not found:
        raise SystemExit("no mirror of Debian is named in /etc/apt: set DEBIAN_MIRROR to one")
    return found[0]


def mount(*words: str | Path) -> None:
    """mount(8), in this script's own namespace."""
    subprocess.run(["mount", *map(str, words)], check=True)


def run_image(stage: Stage, data: Path) -> None:
    """Run the image as `docker run --read-only -v data:/data` would, and look at it from outside."""
    mount("--bind", stage.root, stage.root)
    mount("--bind", data, stage.root / "data")
    mount("-t", "proc", "proc", stage.root / "proc")
    mount("--rbind", "/dev", stage.root / "dev")
    mount("-o", "remount,bind,ro", stage.root)
    stage.environment |= {"PORT": str(PORT), "LOG_FORMAT": "json"}
    assert inside(stage, ["/bin/sh", "-c", "echo x > /opt/x"], check=False) != 0, "the root can be written"
    assert inside(stage, ["/bin/sh", "-c", "test $(id -u) = 10001"]) == 0
    for round_ in ("first", "second"):
        started = time.monotonic()
        relay = subprocess.Popen(
            ["chroot", f"--userspec={stage.user}", str(stage.root), "/usr/bin/env", "-i",
             *(f"{name}={value}" for name, value in stage.environment.items()), *stage.entry],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        while inside(stage, stage.health, check=False):
            assert relay.poll() is None, f"it ended: {relay.stdout.read() if relay.stdout else ''}"
            assert time.monotonic() - started < DEADLINE_SECONDS, "it does not become healthy"
            time.sleep(0.1)
        healthy = time.monotonic() - started
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health") as page:
            say(f"  {round_} start: healthy after {healthy:.1f} s; /health says {page.read().decode()}")
        use(round_)
        relay.send_signal(getattr(signal, stage.stop))
        output, _ = relay.communicate(timeout=DEADLINE_SECONDS)
        assert relay.returncode == 0, (relay.returncode, output)
        lines = [json.loads(line) for line in output.splitlines()]
        say(f"  {round_} stop by {stage.stop}: exit 0, {len(lines)} lines, all of them JSON")


def use(round_: str) -> None:
    """Register at the first start; at the second, the name is still taken and the agent still known."""
    server = f"ws://127.0.0.1:{PORT}"
    client = [str(ROOT / ".venv/bin/aimessage"), "-s", server]
    if round_ == "first":
        subprocess.run([*client, "register", "-u", "image-agent"], check=True, capture_output=True)
    else:
        shown = subprocess.run([*client, "users", "--all"], check=True, capture_output=True, text=True).stdout
        assert "image-agent" in shown, shown
        say("  the agent of the first start is known at the second")


def main() -> int:
    """Run it all in a mount namespace of its own; nothing stays behind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bind", type=Path, action="append", default=[], metavar="DIR")
    parser.add_argument("--suite", default="bookworm", help="the Debian: bookworm has Python 3.11, trixie 3.13")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    missing = [name for name in ("debootstrap", "chroot", "unshare") if shutil.which(name) is None]
    if missing or os.geteuid() != 0 or not (ROOT / ".venv/bin/aimessage").exists():
        say(f"needs root, ./start.sh having run once, and: debootstrap chroot unshare (missing: {missing or 'none'})")
        return 2
    if arguments.inside is not None:
        perform_all(arguments.inside, arguments.bind, arguments.suite)
        return 0
    # The mounts are this child's own and end with it: only then may the directories be deleted.
    with tempfile.TemporaryDirectory(prefix="aimessage-image-") as work:
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv, "--inside", work]
        return subprocess.run(command, check=False).returncode


def perform_all(work: Path, binds: list[Path], suite: str) -> None:
    """Make the base, build the image and run it, all under *work*."""
    os.environ["AIMESSAGE_HOME"] = str(work / "home")
    say("the stand-in for the base image")
    bootstrap(work / "base", binds, suite)
    say("the Dockerfile")
    stage = build(ROOT / "Dockerfile", work, binds)
    data = work / "data"
    data.mkdir()
    os.chown(data, 10_001, 10_001)
    size = sum(each.stat().st_size for each in (stage.root / "opt/aimessage").rglob("*") if each.is_file())
    say(f"the image: what it adds to its base has {size / 1e6:.0f} MB")
    run_image(stage, data)
    say("all steps of the Dockerfile were performed, and the image works")


if __name__ == "__main__":
    sys.exit(main())
