"""An attacker who trains: a network that recognizes restored faces, and a U-Net that draws them anew.

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
from torch import Tensor, nn

from anonlib.audit.evidence.evidence import SIDE
from anonlib.audit.trained import data as linear
from anonlib.audit.trained.data import NETWORK, AttackerData, DataSplit, Floats, Pixels, Points, mean_reciprocal
from anonlib.faces import align
from anonlib.faces.embed import model_input
from anonlib.models.catalog import MODELS
from anonlib.models.torch_graph import TorchGraph
from anonlib.privacy.clustering import normalized

_MOVED, _MOVED_VIEWS = 2, 3
"""Copies of each photo that the linear maps and the U-Net learn from, and the recognizer."""
_TEMPERATURE = 0.07
_EVALUATIONS = 6
"""How often the people kept aside are asked; the best weights are kept."""
_FEATURE = 0.1
"""What a recognizer's disagreement of 1 costs, beside an L1 of 1 in pictures of 0-1."""
_CHUNK = 64


def fit(
    network: nn.Module,
    loss_of: Callable[[], Tensor],
    after: Callable[[int], None],
    steps: int,
    rate: float,
    decay: float,
) -> None:
    """`steps` of AdamW on `loss_of()` with one cycle of the learning rate, `rate` at its highest; `after` each step."""
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
    """Learns from `parts.learn`, chooses by `parts.choose`; `network` are the bytes of NETWORK."""

    def __init__(
        self, network: bytes, data: AttackerData, parts: DataSplit, device: str = "cpu", seed: int = 0
    ) -> None:
        self.network, self.data, self.parts, self.device, self.seed = network, data, parts, device, seed
        self.random = np.random.default_rng(seed)
        learn, choose = data.pairs(parts.learn, _MOVED, self.random), data.pairs(parts.choose, 0, self.random)
        self.restorer = linear.Restorer(learn, choose)
        self.learn = data.pairs(parts.learn, _MOVED, self.random)

    def recognize(self, clear: Floats, steps: int) -> Floats:
        """Vectors (n, d) of the released photos that are near to `clear` (n, d): by a ridge regression from pixels, by
        a network that learns for `steps`, of which 0 learn its head alone, or their sum: the best for `parts.choose`.
        """
        data, choose = self.data, self.parts.choose

        def score(answers: Floats) -> float:
            probes = np.zeros_like(clear)
            probes[choose] = answers
            return mean_reciprocal(probes, clear, data.people, choose)

        shrunk = [linear.small(known.released, known.boxes, linear.COARSE) for known in (self.learn, data)]
        learned, coarse = map(linear.flat, shrunk)
        pixels = normalized(linear.ridge(learned, clear[self.learn.rows], coarse[choose], score)(coarse))
        views = self._views(data.released, data.boxes)
        student = self._student(clear, views[choose], score, steps)
        answers = normalized(self._answers(student, views))
        return max((pixels, answers, pixels + answers), key=lambda probes: score(probes[choose]))

    def _student(self, clear: Floats, aside: Floats, score: Callable[[Floats], float], steps: int) -> StudentRecognizer:
        """Trained to answer `clear` (n, d), the head first by ridge regression, then all towards the vector of the same
        photo and the right person; of its weights those whose answers to the views `aside` score highest."""
        random, known = np.random.default_rng(self.seed), self.parts.learn
        torch.manual_seed(self.seed)
        student: StudentRecognizer = StudentRecognizer(self.network, clear.shape[1]).to(self.device)
        learn = self.data.pairs(known, _MOVED_VIEWS, random)
        views = self._views(learn.released, learn.boxes)
        features, aside_features = (self._answers(student.read, seen) for seen in (views, aside))
        head = linear.ridge_near(features, clear[learn.rows], aside_features, clear[self.parts.choose])
        with torch.no_grad():
            student.head.weight.copy_(torch.from_numpy(head.weights.T))
            student.head.bias.copy_(torch.from_numpy(head.y_mean - head.x_mean @ head.weights))
        people, who = np.unique(self.data.people[known], return_inverse=True)
        means = np.array([clear[known][who == number].mean(axis=0) for number in range(len(people))], np.float32)
        centres = F.normalize(torch.from_numpy(means)).to(self.device)
        right = torch.from_numpy(np.searchsorted(people, self.data.people[learn.rows])).to(self.device)
        target = torch.from_numpy(clear[learn.rows]).to(self.device)

        def loss_of() -> Tensor:
            batch = random.integers(0, len(views), 32)
            faces = torch.from_numpy(views[batch]).to(self.device)
            if random.random() < 0.5:
                faces = faces.flip(3)
            answer = F.normalize(student(faces))
            loss = F.cross_entropy(answer @ centres.T / _TEMPERATURE, right[batch])
            return loss + (1 - (answer * target[batch]).sum(dim=1)).mean()

        best, kept = -1.0, {}
        evaluated = {round(look * steps / _EVALUATIONS) for look in range(_EVALUATIONS + 1)}

        def keep_best(step: int) -> None:
            nonlocal best, kept
            if step in evaluated and (reached := score(self._answers(student, aside))) > best:
                best, kept = reached, {name: weight.detach().clone() for name, weight in student.state_dict().items()}

        keep_best(0)
        fit(student, loss_of, keep_best, steps, rate=5e-4, decay=1e-2)
        student.load_state_dict(kept)
        return student

    def _views(self, released: Pixels, boxes: Points) -> Floats:
        """NETWORK's input (n, 3, 112, 112) of released frames once they are restored."""
        return model_input(NETWORK, list(self.restorer(released, boxes)), list(self.restorer.find(released, boxes)))

    def _answers(self, call: Callable[[Tensor], Tensor], views: Floats) -> Floats:
        with torch.inference_mode():
            parts = torch.from_numpy(views).split(_CHUNK)
            return np.concatenate([call(part.to(self.device)).cpu().numpy() for part in parts])

    def draw(self, steps: int) -> Pixels:
        """Clear frames (n, SIDE, SIDE, 3) as a U-Net draws them in the place of released ones, after `steps`."""
        torch.manual_seed(self.seed)
        data, learn, restorer = self.data, self.learn, self.restorer
        judge = TorchGraph(self.network).eval().to(self.device)
        unet: FaceUNet = FaceUNet().to(self.device)
        restored = restorer(learn.released, learn.boxes)

        def loss_of() -> Tensor:
            batch = self.random.integers(0, len(learn.rows), 16)
            clear = self._tensor(learn.clear[batch])
            drawn = unet(self._tensor(np.concatenate([learn.released[batch], restored[batch]], axis=3)))
            views = judged(drawn, learn.points[batch])
            with torch.no_grad():
                wanted = judge(judged(clear, learn.points[batch]))[0]
            likeness = F.cosine_similarity(judge(views)[0], wanted)
            return F.l1_loss(drawn, clear) + _FEATURE * (1 - likeness).mean()

        fit(unet, loss_of, lambda step: None, steps, rate=2e-3, decay=1e-3)
        drawn = np.empty_like(data.released)
        with torch.inference_mode():
            for start in range(0, len(drawn), _CHUNK):
                released, boxes = data.released[start : start + _CHUNK], data.boxes[start : start + _CHUNK]
                frames = unet(self._tensor(np.concatenate([released, restorer(released, boxes)], axis=3)))
                drawn[start : start + _CHUNK] = np.rint(frames.cpu().numpy().transpose(0, 2, 3, 1) * 255)
        return drawn

    def _tensor(self, frames: Pixels) -> Tensor:
        """Frames (n, s, s, c) -> (n, c, s, s) in 0-1."""
        values = np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        return torch.from_numpy(values).to(self.device)
