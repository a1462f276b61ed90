"""A recognizer that is taught to see in anonymized photos what others see in the clear ones.

The network of the catalogue that is cheapest to train reads the restored face; a linear head on it answers with the
vectors that several recognizers gave the clear photo. The head is first found by ridge regression and both are then
trained together: towards the clear vector of the same photo, and towards the right person among all those known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anonlib.audit.trained.data import AttackerData, DataSplit, Pixels, Points, Rows, TrainingPairs
from anonlib.audit.trained.linear import Restorer, ridge
from anonlib.audit.trained.ranks import placed
from anonlib.faces import align
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import prepare
from anonlib.models.torch_graph import TorchGraph

NETWORK = "mobileface"
"""What the student starts from."""

_TEMPERATURE = 0.07
_DECAY = 1e-2
_BATCH = 32
_LOOKS = 6
"""How often the people kept aside are asked; the best answer is kept."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class RecognizerTraining:
    """`moved`: copies of each photo; `steps` of 32 faces; `rate` of learning at its highest."""

    moved: int = 3
    steps: int = 600
    rate: float = 5e-4
    threads: int = 2
    device: str = "cpu"
    seed: int = 0


class StudentRecognizer(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """NETWORK's input (n, 3, 112, 112) -> vectors (n, d), not of unit length."""

    def __init__(self, network: bytes, outputs: int) -> None:
        super().__init__()
        self.body = TorchGraph(network)
        for name, weight in list(self.body.named_buffers()):
            delattr(self.body, name)
            self.body.register_parameter(name, nn.Parameter(weight.clone()))
        self.head = nn.Linear(MODELS[NETWORK].outputs[0].shape[0], outputs)

    def read(self, faces: Tensor) -> Tensor:
        """Unit features (n, 256)."""
        return F.normalize(self.body(faces)[0])

    def forward(self, faces: Tensor) -> Tensor:
        return self.head(self.read(faces))


def crops(frames: Pixels, points: Points) -> Pixels:
    """NETWORK's crops (n, 112, 112, 3) of frames, by five points (n, 5, 2) px of the frame."""
    wanted = MODELS[NETWORK].input
    target, size = np.array(wanted.landmarks(), np.float32), (wanted.size or (0, 0))[0]
    views = np.zeros((len(frames), size, size, 3), np.uint8)
    for place, (one, five) in enumerate(zip(frames, points, strict=True)):
        views[place] = align.crop(one, align.similarity(five, target), size)
    return views


def restored_crops(restorer: Restorer, released: Pixels, boxes: Points) -> Pixels:
    """The same, of released frames once they are restored."""
    return crops(restorer(released, boxes), restorer.find(released, boxes))


def answers(student: StudentRecognizer, views: Pixels, device: str) -> Floats:
    """Vectors (n, d) of crops (n, 112, 112, 3)."""
    with torch.inference_mode():
        parts = [student(_input(views[i : i + 64], device)).cpu().numpy() for i in range(0, len(views), 64)]
    return np.concatenate(parts)


def school(
    network: bytes,
    held: AttackerData,
    pairs: TrainingPairs,
    parts: DataSplit,
    restorer: Restorer,
    clear: Floats,
    schooling: RecognizerTraining,
) -> StudentRecognizer:
    """A student taught on `parts.learn` to answer `clear` (n, d), stopped where `parts.choose` are best recognized."""
    device, random = schooling.device, np.random.default_rng(schooling.seed)
    torch.manual_seed(schooling.seed)
    student: StudentRecognizer = StudentRecognizer(network, clear.shape[1]).to(device)
    learn = pairs.many(parts.learn, schooling.moved, random)
    views = restored_crops(restorer, learn.released, learn.boxes)
    own = restored_crops(restorer, held.released[parts.choose], held.boxes[parts.choose])
    _begin(student, views, clear[learn.rows], own, clear[parts.choose], device)
    people, who = np.unique(held.people[parts.learn], return_inverse=True)
    centres = np.array([clear[parts.learn][who == one].mean(axis=0) for one in range(len(people))], np.float32)
    known = F.normalize(torch.from_numpy(centres)).to(device)
    number = torch.from_numpy(np.searchsorted(people, held.people[learn.rows])).to(device)
    target = torch.from_numpy(clear[learn.rows]).to(device)
    optimizer = torch.optim.AdamW(student.parameters(), lr=schooling.rate, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, schooling.rate, total_steps=schooling.steps + 1)
    best, kept = _score(student, own, clear, held.people, parts.choose, device), _copy(student)
    bounds = {round((look + 1) * schooling.steps / _LOOKS) for look in range(_LOOKS)}
    for step in range(1, schooling.steps + 1):
        batch = random.integers(0, len(views), _BATCH)
        faces = _input(views[batch], device)
        if random.random() < 0.5:
            faces = faces.flip(3)
        answer = F.normalize(student(faces))
        loss = F.cross_entropy(answer @ known.T / _TEMPERATURE, number[batch])
        loss = loss + (1 - (answer * target[batch]).sum(dim=1)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step in bounds:
            score = _score(student, own, clear, held.people, parts.choose, device)
            if score > best:
                best, kept = score, _copy(student)
    student.load_state_dict(kept)
    return student


def _begin(
    student: StudentRecognizer, views: Pixels, clear: Floats, own: Pixels, own_clear: Floats, device: str
) -> None:
    """The head that ridge regression finds for the features as they are."""

    def read(some: Pixels) -> Floats:
        with torch.inference_mode():
            parts = [student.read(_input(some[i : i + 64], device)).cpu().numpy() for i in range(0, len(some), 64)]
        return np.concatenate(parts)

    found = ridge(read(views), clear, read(own), lambda answers: -float(np.square(answers - own_clear).mean()))
    with torch.no_grad():
        student.head.weight.copy_(torch.from_numpy(found.weights.T))
        student.head.bias.copy_(torch.from_numpy(found.y_mean - found.x_mean @ found.weights))


def _score(student: StudentRecognizer, own: Pixels, clear: Floats, people: Rows, rows: Rows, device: str) -> float:
    """How well the people kept aside are recognized: the mean of one over the place, which moves before rank-one."""
    probes = np.zeros_like(clear)
    probes[rows] = answers(student, own, device)
    return float((1 / placed(probes, clear, people, rows)).mean())


def _copy(student: StudentRecognizer) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in student.state_dict().items()}


def _input(views: Pixels, device: str) -> Tensor:
    return torch.from_numpy(prepare(MODELS[NETWORK], views)).to(device)
