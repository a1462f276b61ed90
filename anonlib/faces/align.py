"""Square, fixed-size views of faces: similarities (2, 3) from image px to crop px, so points go back by the inverse."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float32]


def square(centre: NDArray[np.float32], side: float, angle: float, size: int) -> Affine:
    """Image px -> crop px (size, size): `side` image px around `centre`, turned so that `angle` (rad) lies level."""
    scale = size / max(side, 1e-3)
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    turn = np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([turn, size / 2 - turn @ centre]).astype(np.float32)


def similarity(source: NDArray[np.float32], target: NDArray[np.float32]) -> Affine:
    """The least-squares similarity (2, 3) taking `source` (n, 2) onto `target` (n, 2) (Umeyama 1991)."""
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = source - source_mean, target - target_mean
    u, s, vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
    rotation = u @ np.diag(sign) @ vt
    scale = float((s * sign).sum() / max(float((a**2).sum() / len(a)), 1e-9))
    turn = scale * rotation
    return np.column_stack([turn, target_mean - turn @ source_mean]).astype(np.float32)


def crop(image: NDArray[np.uint8], matrix: Affine, size: int) -> NDArray[np.uint8]:
    """The (size, size, 3) view that `matrix` (2, 3) describes; blurred first where it shrinks, black outside."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.5:
        factor = 0.5 / scale
        corners = apply(inverse(matrix), np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32))
        limits = [image.shape[1], image.shape[0]]
        x0, y0 = np.clip(np.floor(corners.min(axis=0)).astype(int) - 2, 0, limits).tolist()
        x1, y1 = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 2, 0, limits).tolist()
        if x1 - x0 > 1 and y1 - y0 > 1:
            part = image[y0:y1, x0:x1]
            width, height = (max(1, round(length / factor)) for length in (x1 - x0, y1 - y0))
            shrunk = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
            sx, sy = (x1 - x0) / width, (y1 - y0) / height
            back = np.array([[sx, 0, x0 - 0.5 + sx / 2], [0, sy, y0 - 0.5 + sy / 2], [0, 0, 1]])
            matrix = (matrix.astype(np.float64) @ back).astype(np.float32)
            image = np.asarray(shrunk, np.uint8)
    view = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(view, np.uint8)


def apply(matrix: Affine, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """`points` (..., 2) through `matrix` (2, 3)."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float32)


def inverse(matrix: Affine) -> Affine:
    """The (2, 3) way back."""
    return np.asarray(cv2.invertAffineTransform(matrix), np.float32)


def roll(landmarks: NDArray[np.float32]) -> float:
    """Angle (rad) of the line between the eyes of 5 landmarks (5, 2); 0 is level."""
    delta = landmarks[1] - landmarks[0]
    return float(np.arctan2(delta[1], delta[0]))
