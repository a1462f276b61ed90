"""The loop that trains every network here: resumable, the same on a CPU and a GPU, with a record of what it did.

A run has a folder: checkpoint.pt (weights, their moving average, optimizers, random state, steps and seconds spent),
metrics.jsonl, and a sheet of pictures every few minutes, since a loss does not show what a face looks like. A run that
is killed at any moment continues from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from anonlib.training.objectives.base import Objective, TrainingSettings

CHECKPOINT, METRICS = "checkpoint.pt", "metrics.jsonl"

_SHEET_SECONDS, _CHECKPOINT_SECONDS = 300.0, 120.0
_KEPT = 0.999
"""Share of the old weights that the moving average keeps each step; less at first, when weights are of no use."""
_WARM_STEPS = 200


@dataclass(frozen=True)
class TrainingRecord:
    """How far a run is: `steps`, `seconds` spent in all pieces, the `machine`s it ran on, and its last `figures`."""

    steps: int
    seconds: float
    machine: str
    figures: dict[str, float]


class TrainingRun:
    """An objective in its folder; `train` goes on until the settings' seconds are spent."""

    def __init__(self, objective: Objective, folder: Path, settings: TrainingSettings) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(settings.threads)
        self.objective, self.folder, self.settings = objective, folder, settings
        self.average = deepcopy(objective.networks["generator"]).eval().requires_grad_(False)
        self.random = np.random.default_rng(settings.seed)
        self.steps, self.seconds = 0, 0.0
        self.figures: dict[str, float] = {}
        self.machines: list[str] = []
        if (folder / CHECKPOINT).exists():
            self._resume()
        if (machine := _machine(settings.device)) not in self.machines:
            self.machines.append(machine)

    def train(self) -> TrainingRecord:
        """Train; returns the record, which the checkpoint holds too."""
        settings = self.settings
        began, before = time.monotonic(), self.seconds
        shown = saved = began
        sums: dict[str, float] = {}
        counted = 0
        while self.seconds < settings.seconds:
            progress = min(1.0, self.seconds / settings.seconds)
            rate = settings.rate * min(1.0, self.steps / _WARM_STEPS) * 0.5 * (1 + math.cos(math.pi * progress))
            for optimizer in self.objective.optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = rate * group.get("scale", 1.0)
            for name, value in self.objective.step(self.random, progress).items():
                sums[name] = sums.get(name, 0.0) + value
            counted += 1
            self.steps += 1
            self._blend()
            now = time.monotonic()
            self.seconds = before + now - began
            if now - shown >= _SHEET_SECONDS or self.seconds >= settings.seconds:
                self._show({name: total / counted for name, total in sums.items()})
                sums, counted, shown = {}, 0, time.monotonic()
            if now - saved >= _CHECKPOINT_SECONDS:
                self._save()
                saved = time.monotonic()
        self._save()
        return TrainingRecord(self.steps, self.seconds, "; ".join(self.machines), self.figures)

    def _blend(self) -> None:
        """Move the average towards the weights."""
        kept = min(_KEPT, (1 + self.steps) / (10 + self.steps))
        new = self.objective.networks["generator"].state_dict()
        for name, old in self.average.state_dict().items():
            if old.dtype.is_floating_point:
                old.lerp_(new[name].to(old.dtype), 1 - kept)
            else:
                old.copy_(new[name])

    def _show(self, losses: Mapping[str, float]) -> None:
        with torch.inference_mode():
            self.figures = self.objective.measure(self.average)
            sheet = self.objective.sheet(self.average)
        cv2.imwrite(str(self.folder / f"sheet-{self.steps:07}.png"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        rounded = {name: round(float(value), 5) for name, value in {**losses, **self.figures}.items()}
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps({"step": self.steps, "seconds": round(self.seconds, 1), **rounded}) + "\n")

    def _save(self) -> None:
        networks, optimizers = self.objective.networks, self.objective.optimizers
        state = {
            "networks": {name: network.state_dict() for name, network in networks.items()},
            "average": self.average.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
            "random": json.dumps(self.random.bit_generator.state),
            "steps": self.steps,
            "seconds": self.seconds,
            "machines": self.machines,
            "figures": self.figures,
        }
        part = self.folder / f"{CHECKPOINT}.part"
        torch.save(state, part)
        part.replace(self.folder / CHECKPOINT)

    def _resume(self) -> None:
        state = read_checkpoint(self.folder, self.settings.device)
        for name, network in self.objective.networks.items():
            network.load_state_dict(state["networks"][name])
        self.average.load_state_dict(state["average"])
        for name, optimizer in self.objective.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.random.bit_generator.state = json.loads(state["random"])
        self.steps, self.seconds = state["steps"], state["seconds"]
        self.machines, self.figures = state["machines"], state["figures"]


def read_checkpoint(folder: Path, device: str = "cpu") -> dict[str, Any]:
    """What a run's checkpoint holds, its tensors on `device`."""
    state: dict[str, Any] = torch.load(folder / CHECKPOINT, map_location=device, weights_only=True)
    return state


def _machine(device: str) -> str:
    """What a run trains on, for the model card."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"{torch.get_num_threads()} threads of {platform.machine()} CPU"
