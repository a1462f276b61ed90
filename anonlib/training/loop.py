"""The loop that every network here is trained by: resumable, the same on a CPU and a GPU, and it keeps a record.

A run lives in a folder: checkpoint.pt (weights, their moving average, optimizers, random state, step and seconds
spent), metrics.jsonl, and a sheet of pictures now and then, since a loss does not say what a face looks like. Killed at
any moment, it goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from anonlib.errors import ConfigError

CHECKPOINT, METRICS, NOTES = "checkpoint.pt", "metrics.jsonl", "run.json"
"""What lies in a run's folder; the notes are the network's own, written when a piece is done."""

_EMA_WARM, _WARM = 10.0, 200


@dataclass(frozen=True)
class Settings:
    """`seconds`: how long this run may go on in all; `rate` of learning falls to none at the end of them.

    `average`: share of the old weights that the moving average keeps each step. `pictures`, `save`: seconds between
    sheets and checkpoints. `compiled`: by torch.compile, worth its minutes on a GPU.
    """

    seconds: float
    rate: float = 6e-4
    average: float = 0.999
    pictures: float = 300.0
    save: float = 120.0
    device: str = "cpu"
    bf16: bool = True
    compiled: bool = False
    threads: int = 2
    seed: int = 0


class Task(Protocol):
    """What is trained: its networks by name, of which `generator` is averaged and shown."""

    @property
    def networks(self) -> Mapping[str, torch.nn.Module]: ...
    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]: ...

    def step(self, random: np.random.Generator, progress: float) -> dict[str, float]:
        """One step of every optimizer, `progress` 0-1 of the run; returns what to record."""
        ...

    def measure(self, generator: torch.nn.Module) -> dict[str, float]:
        """Figures on faces that are not trained on."""
        ...

    def sheet(self, generator: torch.nn.Module) -> NDArray[np.uint8]:
        """A picture (H, W, 3) of what it draws."""
        ...


@dataclass(frozen=True)
class Record:
    """How far a run is: `steps`, `seconds` spent in all pieces, the `machine`s it ran on, and its last `figures`."""

    steps: int
    seconds: float
    machine: str
    figures: dict[str, float]


class Run:
    """A task in its folder; `go` trains until the settings' seconds are spent."""

    def __init__(self, task: Task, folder: Path, settings: Settings) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(settings.threads)
        self.task, self.folder, self.settings = task, folder, settings
        self.average = deepcopy(task.networks["generator"]).eval().requires_grad_(False)
        self.random = np.random.default_rng(settings.seed)
        self.steps, self.seconds = 0, 0.0
        self.figures: dict[str, float] = {}
        self.machines: list[str] = []
        if (folder / CHECKPOINT).exists():
            self._resume()
        if (machine := machine_of(settings.device)) not in self.machines:
            self.machines.append(machine)

    def go(self) -> Record:
        """Train; returns the record, which the checkpoint holds too."""
        settings = self.settings
        began, before = time.monotonic(), self.seconds
        shown = saved = began
        sums: dict[str, float] = {}
        counted = 0
        while self.seconds < settings.seconds:
            progress = min(1.0, self.seconds / settings.seconds)
            rate = settings.rate * min(1.0, self.steps / _WARM) * 0.5 * (1 + math.cos(math.pi * progress))
            for optimizer in self.task.optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = rate * group.get("scale", 1.0)
            for name, value in self.task.step(self.random, progress).items():
                sums[name] = sums.get(name, 0.0) + value
            counted += 1
            self.steps += 1
            self._blend()
            now = time.monotonic()
            self.seconds = before + now - began
            if now - shown >= settings.pictures or self.seconds >= settings.seconds:
                self._show({name: total / counted for name, total in sums.items()})
                sums, counted, shown = {}, 0, time.monotonic()
            if now - saved >= settings.save:
                self._save()
                saved = time.monotonic()
        self._save()
        return self.record()

    def record(self) -> Record:
        """How far it is."""
        return Record(self.steps, self.seconds, "; ".join(self.machines), self.figures)

    def _blend(self) -> None:
        """Move the average towards the weights; fast at first, since the first weights are of no use."""
        kept = min(self.settings.average, (1 + self.steps) / (_EMA_WARM + self.steps))
        new = self.task.networks["generator"].state_dict()
        for name, old in self.average.state_dict().items():
            if old.dtype.is_floating_point:
                old.lerp_(new[name].to(old.dtype), 1 - kept)
            else:
                old.copy_(new[name])

    def _show(self, losses: Mapping[str, float]) -> None:
        with torch.inference_mode():
            self.figures = self.task.measure(self.average)
            sheet = self.task.sheet(self.average)
        cv2.imwrite(str(self.folder / f"sheet-{self.steps:07}.png"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        line = {"step": self.steps, "seconds": round(self.seconds, 1), **_rounded(losses), **_rounded(self.figures)}
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        state = {
            "networks": {name: network.state_dict() for name, network in self.task.networks.items()},
            "average": self.average.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.task.optimizers.items()},
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
        state: dict[str, Any] = torch.load(
            self.folder / CHECKPOINT, map_location=self.settings.device, weights_only=True
        )
        for name, network in self.task.networks.items():
            network.load_state_dict(state["networks"][name])
        self.average.load_state_dict(state["average"])
        for name, optimizer in self.task.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.random.bit_generator.state = json.loads(state["random"])
        self.steps, self.seconds = state["steps"], state["seconds"]
        self.machines, self.figures = state["machines"], state["figures"]


def read_notes(folder: Path) -> dict[str, Any]:
    """The notes of a run; raises ConfigError if no piece of it is done."""
    try:
        notes: dict[str, Any] = json.loads((folder / NOTES).read_text())
    except FileNotFoundError:
        raise ConfigError(f"{folder} holds no finished piece of a training run; train there first") from None
    return notes


def autocast(settings: Settings) -> AbstractContextManager[Any]:
    """Half the bits for convolutions and products, where the settings say so."""
    context: AbstractContextManager[Any] = torch.autocast(
        settings.device.partition(":")[0], dtype=torch.bfloat16, enabled=settings.bf16
    )
    return context


def grid_of(rows: Iterable[Iterable[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Pictures of one size as one picture."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def machine_of(device: str) -> str:
    """What a run trains on, for the model card."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"{torch.get_num_threads()} threads of {platform.machine()} CPU"


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 5) for name, value in figures.items()}
