"""Networks of an attacker who trains: one that recognizes restored faces, and a U-Net that restores them.

Both start from a linear restorer. The recognizer answers with the vectors that several recognizers gave the clear
photo; the U-Net (Ronneberger et al. 2015, arXiv 1505.04597) is trained on pixels (L1) and on the vector that NETWORK
gives what it draws.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anonlib.audit.evidence.evidence import SIDE
from anonlib.audit.trained.data import NETWORK, BatchDraw, DataSplit, Pixels, Points, TrainingPairs, mean_reciprocal
from anonlib.audit.trained.linear import Restorer, ridge
from anonlib.faces import align
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import prepare
from anonlib.models.torch_graph import TorchGraph

_TEMPERATURE = 0.07
_MOVED = 3
"""Copies of each photo that the recognizer learns from."""
_EVALUATIONS = 6
"""How often the people kept aside are asked; the best weights are kept."""
_FEATURE = 0.1
"""What a recognizer's disagreement of 1 costs, beside an L1 of 1 in pictures of 0-1."""
_CHUNK = 64

Floats = NDArray[np.float32]


def fit(
    network: nn.Module,
    loss_of: Callable[[], Tensor],
    *,
    steps: int,
    rate: float,
    decay: float,
    after: Callable[[int], None] = lambda step: None,
) -> None:
    """`steps` of AdamW on `loss_of()` with one cycle of the learning rate, `rate` at its highest."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1)
    for step in range(1, steps + 1):
        loss = loss_of()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        after(step)


# ---- the recognizer ---------------------------------------------------------------------------------------------


class StudentRecognizer(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """NETWORK's input (n, 3, 112, 112) -> vectors (n, d), not of unit length."""

    def __init__(self, network: bytes, outputs: int) -> None:
        super().__init__()
        self.body = TorchGraph(network)
        for name, weight in list(self.body.named_buffers()):
            delattr(self.body, name)
            self.body.register_parameter(name, nn.Parameter(weight.clone()))
        self.head = nn.Linear(MODELS[NETWORK].outputs["embedding"][0], outputs)

    def read(self, faces: Tensor) -> Tensor:
        """Unit features (n, 256)."""
        return F.normalize(self.body(faces)[0])

    def forward(self, faces: Tensor) -> Tensor:
        return self.head(self.read(faces))


def crops(frames: Pixels, points: Points) -> Pixels:
    """NETWORK's crops (n, 112, 112, 3) of frames, by five points (n, 5, 2) px of the frame."""
    size, target = _target()
    views = [
        align.crop(picture, align.similarity(five, target), size) for picture, five in zip(frames, points, strict=True)
    ]
    return np.array(views, np.uint8).reshape(-1, size, size, 3)


def restored_crops(restorer: Restorer, released: Pixels, boxes: Points) -> Pixels:
    """The same, of released frames once they are restored."""
    return crops(restorer(released, boxes), restorer.find(released, boxes))


def answers(call: Callable[[Tensor], Tensor], views: Pixels, device: str) -> Floats:
    """Vectors (n, d) of crops (n, 112, 112, 3)."""
    with torch.inference_mode():
        starts = range(0, len(views), _CHUNK)
        return np.concatenate([call(_input(views[i : i + _CHUNK], device)).cpu().numpy() for i in starts])


def train_recognizer(
    network: bytes,
    pairs: TrainingPairs,
    parts: DataSplit,
    restorer: Restorer,
    clear: Floats,
    *,
    steps: int,
    device: str,
    seed: int,
) -> StudentRecognizer:
    """Trained on `parts.learn` to answer `clear` (n, d); of its weights those that recognize `parts.choose` best.

    The head is first found by ridge regression, then both are trained: towards the clear vector of the same photo, and
    towards the right person among all those known. `network` are the bytes of NETWORK.
    """
    random, people = np.random.default_rng(seed), pairs.data.people
    torch.manual_seed(seed)
    student: StudentRecognizer = StudentRecognizer(network, clear.shape[1]).to(device)
    learn = pairs.many(parts.learn, _MOVED, random)
    views = restored_crops(restorer, learn.released, learn.boxes)
    aside = restored_crops(restorer, pairs.data.released[parts.choose], pairs.data.boxes[parts.choose])
    _fit_head(student, views, clear[learn.rows], aside, clear[parts.choose], device)
    known_people, who = np.unique(people[parts.learn], return_inverse=True)
    centres = np.array([clear[parts.learn][who == number].mean(axis=0) for number in range(len(known_people))])
    known = F.normalize(torch.from_numpy(centres.astype(np.float32))).to(device)
    number = torch.from_numpy(np.searchsorted(known_people, people[learn.rows])).to(device)
    target = torch.from_numpy(clear[learn.rows]).to(device)

    def loss_of() -> Tensor:
        batch = random.integers(0, len(views), 32)
        faces = _input(views[batch], device)
        if random.random() < 0.5:
            faces = faces.flip(3)
        answer = F.normalize(student(faces))
        loss = F.cross_entropy(answer @ known.T / _TEMPERATURE, number[batch])
        return loss + (1 - (answer * target[batch]).sum(dim=1)).mean()

    def score() -> float:
        probes = np.zeros_like(clear)
        probes[parts.choose] = answers(student, aside, device)
        return mean_reciprocal(probes, clear, people, parts.choose)

    best, kept = score(), _copy(student)
    evaluated = {round((look + 1) * steps / _EVALUATIONS) for look in range(_EVALUATIONS)}

    def keep_best(step: int) -> None:
        nonlocal best, kept
        if step in evaluated and (reached := score()) > best:
            best, kept = reached, _copy(student)

    fit(student, loss_of, steps=steps, rate=5e-4, decay=1e-2, after=keep_best)
    student.load_state_dict(kept)
    return student


def _fit_head(
    student: StudentRecognizer, views: Pixels, clear: Floats, aside: Pixels, aside_clear: Floats, device: str
) -> None:
    """A ridge regression from the features of crops `views` to `clear` (n, d); its penalty fits those `aside` best."""
    read = answers(student.read, views, device)
    fitted = ridge(
        read, clear, answers(student.read, aside, device), lambda found: -float(np.square(found - aside_clear).mean())
    )
    with torch.no_grad():
        student.head.weight.copy_(torch.from_numpy(fitted.weights.T))
        student.head.bias.copy_(torch.from_numpy(fitted.y_mean - fitted.x_mean @ fitted.weights))


def _copy(student: StudentRecognizer) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in student.state_dict().items()}


def _input(views: Pixels, device: str) -> Tensor:
    return torch.from_numpy(prepare(MODELS[NETWORK], views)).to(device)


def _target() -> tuple[int, Floats]:
    """Side of NETWORK's input in px, and where it wants five points (5, 2)."""
    wanted = MODELS[NETWORK].input
    return (wanted.size or (0, 0))[0], np.array(wanted.landmarks(), np.float32)


# ---- the U-Net --------------------------------------------------------------------------------------------------


class FaceUNet(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """Released and linearly restored frames (n, 6, SIDE, SIDE) in 0-1 -> clear ones (n, 3, SIDE, SIDE)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        widths = (width, width * 2, width * 3, width * 4)
        self.stem = nn.Conv2d(6, widths[0], 4, stride=2, padding=1)
        self.down = nn.ModuleList(_block(a, b, 2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(
            _block(a + b, b, 1) for a, b in zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True)
        )
        self.draw = nn.Conv2d(widths[0], 12, 3, padding=1)
        nn.init.zeros_(self.draw.weight)
        nn.init.zeros_(self.draw.bias)

    def forward(self, frames: Tensor) -> Tensor:
        levels = [F.relu(self.stem(frames))]
        for block in self.down:
            levels.append(block(levels[-1]))
        value = levels.pop()
        for block in self.up:
            level = levels.pop()
            value = block(torch.cat([F.interpolate(value, scale_factor=2.0), level], dim=1))
        return (frames[:, 3:] + F.pixel_shuffle(self.draw(value), 2)).clamp(0, 1)


def train_unet(
    network: bytes, learn: BatchDraw, restorer: Restorer, random: np.random.Generator, steps: int, device: str
) -> FaceUNet:
    """A U-Net after `steps` of 16 pairs of `learn`; `network` are the bytes of NETWORK."""
    judge = TorchGraph(network).eval().to(device)
    unet: FaceUNet = FaceUNet().to(device)
    restored = restorer(learn.released, learn.boxes)

    def loss_of() -> Tensor:
        batch = random.integers(0, len(learn.rows), 16)
        clear = _tensor(learn.clear[batch], device)
        drawn = unet(_with_restored(learn.released[batch], restored[batch], device))
        views = judged(drawn, learn.points[batch])
        with torch.no_grad():
            wanted = judge(judged(clear, learn.points[batch]))[0]
        likeness = F.cosine_similarity(judge(views)[0], wanted)
        return F.l1_loss(drawn, clear) + _FEATURE * (1 - likeness).mean()

    fit(unet, loss_of, steps=steps, rate=2e-3, decay=1e-3)
    return unet


def draw_clear(unet: FaceUNet, restorer: Restorer, released: Pixels, boxes: Points, device: str) -> Pixels:
    """Clear frames (n, SIDE, SIDE, 3) as the U-Net draws them in the place of released ones with boxes (n, 4)."""
    drawn = np.empty_like(released)
    with torch.inference_mode():
        for start in range(0, len(drawn), _CHUNK):
            rows = slice(start, start + _CHUNK)
            restored = restorer(released[rows], boxes[rows])
            frames = unet(_with_restored(released[rows], restored, device)).cpu().numpy()
            drawn[rows] = np.rint(frames.transpose(0, 2, 3, 1) * 255)
    return drawn


def judged(frames: Tensor, points: Points) -> Tensor:
    """NETWORK's input (n, 3, 112, 112), cut out of frames (n, 3, SIDE, SIDE) in 0-1 so that gradients flow."""
    wanted, (size, target) = MODELS[NETWORK].input, _target()
    whole = np.eye(3, dtype=np.float64)
    # Pixel centres to torch's -1..1 and back, at both ends of the transform.
    to_unit = np.array([[2 / SIDE, 0, 1 / SIDE - 1], [0, 2 / SIDE, 1 / SIDE - 1], [0, 0, 1]])
    to_pixel = np.array([[size / 2, 0, size / 2 - 0.5], [0, size / 2, size / 2 - 0.5], [0, 0, 1]])
    maps = []
    for five in points:
        whole[:2] = align.inverse(align.similarity(five, target))
        maps.append((to_unit @ whole @ to_pixel)[:2])
    theta = torch.tensor(np.array(maps), dtype=torch.float32, device=frames.device)
    grid = F.affine_grid(theta, [len(frames), 3, size, size], align_corners=False)
    views = F.grid_sample(frames, grid, align_corners=False)
    mean = torch.tensor(wanted.mean, device=frames.device).reshape(1, 3, 1, 1)
    return (views * 255 - mean) * wanted.scale


def _with_restored(released: Pixels, restored: Pixels, device: str) -> Tensor:
    return torch.cat([_tensor(released, device), _tensor(restored, device)], dim=1)


def _tensor(frames: Pixels, device: str) -> Tensor:
    values = np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
    return torch.from_numpy(values).to(device)


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(),
    )
