"""An attacker who trains: a network that recognizes restored faces, and a U-Net that draws them anew.

Both start from a linear restorer. The recognizer answers with the vectors that several recognizers gave the clear
photo; the U-Net (Ronneberger et al. 2015, arXiv 1505.04597) is trained on pixels (L1) and on the vector that NETWORK
gives what it draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import pairwise
from threading import Lock

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from anonlib.audit.evidence.evidence import SIDE
from anonlib.audit.trained import data as linear
from anonlib.audit.trained.data import NETWORK, AttackerData, Floats, Pairs, Pixels, Points, standing
from anonlib.faces import align
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import has_bf16, prepare
from anonlib.models.torch_graph import TorchGraph
from anonlib.privacy.clustering import normalized

_MOVED = 2
"""Copies of each photo, moved, that are learned from beside the photo itself."""
_TEMPERATURE = 0.07
_EVERY, _PATIENCE = 20, 2
"""Steps between two questions to the people kept aside, and how often in a row the answers may be worse than before."""
_MEMORY = 0.97
"""Of the running mean of weights at each step; it is what is asked and kept."""
_PICKS = 8
_FEATURE = 0.1
"""What a recognizer's disagreement of 1 costs, beside an L1 of 1 in pictures of 0-1."""
_CHUNK, _SIDE = 64, 112
_MAKING = Lock()
"""Torch draws the first weights of a network by a generator that all threads share."""


def fit(
    network: nn.Module,
    loss_of: Callable[[], Tensor],
    score: Callable[[nn.Module], float],
    steps: int,
    rate: float,
    decay: float,
) -> None:
    """AdamW on `loss_of()` while the running mean of the weights (Polyak and Juditsky 1992) grows in `score`, or for
    `steps`; the best mean is left in the network."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    mean = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(_MEMORY))
    best = last = score(network)
    kept, late = deepcopy(network.state_dict()), 0
    for step in range(1, steps + 1):
        loss = loss_of()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        mean.update_parameters(network)
        if step % _EVERY == 0 or step == steps:
            reached = score(mean.module)
            if reached > best:
                best, kept = reached, deepcopy(mean.module.state_dict())
            late, last = 0 if reached > last else late + 1, reached
            if late == _PATIENCE:
                break
    network.load_state_dict(kept)


def ensemble(answers: Sequence[Floats], score: Callable[[Floats], float]) -> Floats:
    """The mean of some of `answers` (n, d) each, picked one after another, again and again, while `score` grows
    (Caruana et al. 2004, ICML: ensemble selection)."""
    best, total = -1.0, np.zeros_like(answers[0])
    for _ in range(_PICKS):
        reached, number = max((score(total + answer), number) for number, answer in enumerate(answers))
        if reached <= best:
            break
        best, total = reached, total + answers[number]
    return total


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


class FaceUNet(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """Released and linearly restored frames (n, 6, SIDE, SIDE) in 0-1 -> clear ones (n, 3, SIDE, SIDE)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        widths = (width, width * 2, width * 3, width * 4)
        self.stem = nn.Conv2d(6, widths[0], 4, stride=2, padding=1)
        self.down = nn.ModuleList(_block(a, b, 2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_block(a + b, b, 1) for a, b in pairwise(widths[::-1]))
        self.draw = nn.Conv2d(widths[0], 12, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # torch's own first weights let a face fade from level to level
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.draw.weight)

    def forward(self, frames: Tensor) -> Tensor:
        levels = [F.relu(self.stem(frames))]
        for block in self.down:
            levels.append(block(levels[-1]))
        value = levels.pop()
        for block in self.up:
            level = levels.pop()
            value = block(torch.cat([F.interpolate(value, scale_factor=2.0), level], dim=1))
        return (frames[:, 3:] + F.pixel_shuffle(self.draw(value), 2)).clamp(0, 1)


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    first, second = nn.Conv2d(inputs, outputs, 3, stride, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


def judged(frames: Tensor, points: Points) -> Tensor:
    """NETWORK's input (n, 3, 112, 112), cut out of frames (n, 3, SIDE, SIDE) in 0-1 so that gradients flow."""
    wanted = MODELS[NETWORK].input
    size, target = (wanted.size or (0, 0))[0], np.array(wanted.landmarks(), np.float32)
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


class TrainedAttacker:
    """Learns from `data.learn`, chooses by `data.choose`; `network` are the bytes of NETWORK."""

    def __init__(self, network: bytes, data: AttackerData, device: str = "cpu", seed: int = 0) -> None:
        self.network, self.data, self.device, self.seed = network, data, device, seed
        self.random = np.random.default_rng(seed)
        self.learn, self.choose = data.pairs(data.learn, _MOVED, self.random), data.pairs(data.choose, 0, self.random)
        self.restorer = linear.Restorer(self.learn, self.choose)
        self.asked = np.sort(np.concatenate([data.choose, data.attack]))
        self.half = device != "cpu" or has_bf16()

    def recognize(self, clear: Floats, steps: int) -> Floats:
        """Vectors (n, d) of the released photos that are near to `clear` (n, d), 0 for who is learned from. Of four
        attackers those that are best together for `data.choose`: ridge regressions from pixels and from what
        recognizers say, and networks that read the restored face and the whole frame, which learn until they are no
        better for `data.choose`, or for `steps`; of 0 steps they learn their heads alone."""
        data, learn, asked = self.data, self.learn, self.asked
        aside = np.isin(asked, data.choose)
        whole = np.zeros_like(clear)

        def score(probes: Floats) -> float:
            whole[asked[aside]] = probes
            return standing(whole, clear, data.people, data.choose)

        released, boxes, wanted = data.released[asked], data.boxes[asked], clear[learn.rows]
        pairs = (learn.released, learn.boxes), (released, boxes)
        known, coarse = (linear.flat(linear.small(frames, places, linear.COARSE)) for frames, places in pairs)
        answers = [linear.mapped(coarse, linear.ridge(known, wanted, coarse[aside], score))]
        if data.seen is not None:
            known, seen = data.seen[data.learn], data.seen[asked]
            answers.append(linear.mapped(seen, linear.ridge(known, clear[data.learn], seen[aside], score)))
        for view in (self._restored, _whole):
            views = view(released, boxes)
            student = self._student(clear, view(learn.released, learn.boxes), views[aside], score, steps)
            # A face and its mirror image are one person.
            answers.append(self._answers(student, views) + self._answers(student, views[:, :, ::-1]))
        whole[asked] = ensemble([normalized(answer) for answer in answers], lambda probes: score(probes[aside]))
        return whole

    def _student(
        self, clear: Floats, views: Pixels, aside: Pixels, score: Callable[[Floats], float], steps: int
    ) -> StudentRecognizer:
        """Trained to answer `clear` (n, d) to `views` of `learn`, the head first by ridge regression, then all towards
        the vector of the same photo and the right person; `aside` are views of `data.choose`."""
        random, known, rows = np.random.default_rng(self.seed), self.data.learn, self.learn.rows
        with _MAKING:
            torch.manual_seed(self.seed)
            student: StudentRecognizer = StudentRecognizer(self.network, clear.shape[1]).to(self.device)
        features, aside_features = (self._answers(student.read, seen) for seen in (views, aside))
        x_mean, weights, y_mean = linear.ridge_near(features, clear[rows], aside_features, clear[self.data.choose])
        with torch.no_grad():
            student.head.weight.copy_(torch.from_numpy(weights.T))
            student.head.bias.copy_(torch.from_numpy(y_mean - x_mean @ weights))
        people, who = np.unique(self.data.people[known], return_inverse=True)
        means = np.array([clear[known][who == number].mean(axis=0) for number in range(len(people))], np.float32)
        centres = F.normalize(torch.from_numpy(means)).to(self.device)
        right = torch.from_numpy(np.searchsorted(people, self.data.people[rows])).to(self.device)
        target = torch.from_numpy(clear[rows]).to(self.device)

        def loss_of() -> Tensor:
            batch = random.integers(0, len(views), 32)
            mirrored = random.random() < 0.5
            with self._computing():
                answer = student(self._input(views[batch][:, :, ::-1] if mirrored else views[batch]))
            answer = F.normalize(answer.float())
            loss = F.cross_entropy(answer @ centres.T / _TEMPERATURE, right[batch])
            return loss + (1 - (answer * target[batch]).sum(dim=1)).mean()

        fit(student, loss_of, lambda network: score(self._answers(network, aside)), steps, rate=3e-4, decay=1e-2)
        return student

    def _restored(self, released: Pixels, boxes: Points) -> Pixels:
        """Released frames as NETWORK reads them once they are restored (n, 112, 112, 3)."""
        target, points = np.array(MODELS[NETWORK].input.landmarks(), np.float32), self.restorer.find(released, boxes)
        pairs = zip(self.restorer(released, boxes), points, strict=True)
        return np.array([align.crop(frame, align.similarity(five, target), _SIDE) for frame, five in pairs])

    def _input(self, views: Pixels) -> Tensor:
        return torch.from_numpy(prepare(MODELS[NETWORK], views)).to(self.device, memory_format=torch.channels_last)

    def _computing(self) -> torch.autocast:
        """In bfloat16 where the device is faster with it; weights stay in single precision."""
        return torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.half)

    def _answers(self, call: Callable[[Tensor], Tensor], views: Pixels) -> Floats:
        with torch.inference_mode(), self._computing():
            parts = np.split(views, range(_CHUNK, len(views), _CHUNK))
            return np.concatenate([call(self._input(part)).float().cpu().numpy() for part in parts])

    def draw(self, steps: int) -> Pixels:
        """Clear frames (n, SIDE, SIDE, 3) as a U-Net draws them in the place of released ones, as they are where they
        are learned from; it learns until it is no nearer to those of `data.choose`, or for `steps`."""
        learn, choose, restorer, data = self.learn, self.choose, self.restorer, self.data
        judge = TorchGraph(self.network).eval().to(self.device)
        with _MAKING:
            torch.manual_seed(self.seed)
            unet: FaceUNet = FaceUNet().to(self.device, memory_format=torch.channels_last)
        restored, restored_aside = (restorer(part.released, part.boxes) for part in (learn, choose))

        def drawn_by(network: nn.Module, released: Pixels, restored: Pixels) -> Tensor:
            with self._computing():
                return network(self._tensor(np.concatenate([released, restored], axis=3))).float()

        def distance(drawn: Tensor, pairs: Pairs, rows: NDArray[np.int64]) -> Tensor:
            clear = self._tensor(pairs.clear[rows])
            with self._computing():
                likeness = F.cosine_similarity(*(judge(judged(f, pairs.points[rows]))[0] for f in (drawn, clear)))
            return F.l1_loss(drawn, clear) + _FEATURE * (1 - likeness.float()).mean()

        def loss_of() -> Tensor:
            batch = self.random.integers(0, len(learn.rows), 16)
            return distance(drawn_by(unet, learn.released[batch], restored[batch]), learn, batch)

        def score(network: nn.Module) -> float:
            with torch.inference_mode():
                parts = np.split(np.arange(len(choose.rows)), range(_CHUNK, len(choose.rows), _CHUNK))
                drawn = [drawn_by(network, choose.released[rows], restored_aside[rows]) for rows in parts]
                apart = [distance(d, choose, rows) * len(rows) for d, rows in zip(drawn, parts, strict=True)]
            return -float(sum(apart))

        fit(unet, loss_of, score, steps, rate=1e-3, decay=1e-3)
        frames = data.released.copy()
        with torch.inference_mode():
            for rows in np.split(self.asked, range(_CHUNK, len(self.asked), _CHUNK)):
                released = data.released[rows]
                drawn = drawn_by(unet, released, restorer(released, data.boxes[rows]))
                frames[rows] = np.rint(drawn.cpu().numpy().transpose(0, 2, 3, 1) * 255)
        return frames

    def _tensor(self, frames: Pixels) -> Tensor:
        """Frames (n, s, s, c) -> (n, c, s, s) in 0-1."""
        values = np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        return torch.from_numpy(values).to(self.device, memory_format=torch.channels_last)


def _whole(released: Pixels, boxes: Points) -> Pixels:
    """Whole frames in the size of NETWORK's input, hair, clothes and place included."""
    return np.array([cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR) for frame in released], np.uint8)
