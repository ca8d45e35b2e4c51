"""What a process costs, read from the kernel: memory, sockets and other descriptors, and how they move with time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Vitals", "slope", "vitals_of"]


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look at a process: resident bytes, sockets, other open descriptors."""

    rss_bytes: int
    sockets: int
    files: int

    @property
    def descriptors(self) -> int:
        """All open descriptors."""
        return self.sockets + self.files

    @property
    def rss_mib(self) -> float:
        """Resident memory in MiB."""
        return self.rss_bytes / (1 << 20)

    def __str__(self) -> str:
        return f"{self.rss_mib:.1f} MiB, {self.sockets} sockets, {self.files} files"


def vitals_of(pid: int) -> Vitals:
    """Return what process *pid* holds now. Raises OSError: there is no such process."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    sockets = files = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:  # closed while we looked
            continue
        if target.startswith("socket:"):
            sockets += 1
        else:
            files += 1
    return Vitals(int(resident.split()[1]) << 10, sockets, files)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the least-squares slope of (x, y) points, in units of y for each unit of x; 0.0 for fewer than two."""
    if len(points) < 2:
        return 0.0
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0
