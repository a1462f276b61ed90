"""Where training begins: what one person's aligned crops show that another's do not, as a linear map.

Ridge regression from identity vectors to crops, made alike on both sides, since half of all light comes from the left.
Only what is finer than a cheek is kept: tone and light stay the photo's. Without any training, this much already leads
recognizers astray that it was not fitted on.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from anonlib.training.feature_transfer.data import CropSet
from anonlib.training.feature_transfer.network import DRAWN_SIDE, RANK, FeatureTransferNet

RIDGE = 30.0
FINEST = 5.0
"""Standard deviation in px, of DRAWN_SIDE, of what is too smooth to be a feature."""
COLOUR = 0.3
"""How much of its colours is kept: a face is told by shades, and blue ones are seen at once."""
STRETCH = 2.0
"""Regression answers fainter than faces are; more is stronger and shows more."""
_BLOCK = 1000


def begin(net: FeatureTransferNet, faces: CropSet) -> None:
    """Set the net's linear map to the regression on `faces`."""
    drawn = regression(faces).transpose(0, 3, 1, 2).reshape(-1, 3 * DRAWN_SIDE**2)
    left, strength, right = np.linalg.svd(STRETCH * drawn, full_matrices=False)
    spread = np.sqrt(strength[:RANK])
    with torch.no_grad():
        net.wish.weight.copy_(torch.from_numpy((left[:, :RANK] * spread).T.copy()))
        net.draw.weight.copy_(torch.from_numpy((right[:RANK].T * spread).copy()))


def regression(faces: CropSet) -> NDArray[np.float32]:
    """(d, DRAWN_SIDE, DRAWN_SIDE, 3): what a crop in 0-1 gains with each number of a centred identity vector."""
    points = next(iter(faces.centred().values()))
    told = np.zeros((points.shape[1], 3 * DRAWN_SIDE**2))
    for start in range(0, len(faces), _BLOCK):
        small = np.stack(
            [
                cv2.resize(crop, (DRAWN_SIDE, DRAWN_SIDE), interpolation=cv2.INTER_AREA)
                for crop in faces.crops[start : start + _BLOCK]
            ]
        ).astype(np.float32)
        alike = (small + small[:, :, ::-1]) / (2 * 255)
        alike = (alike - alike.mean(axis=(1, 2, 3), keepdims=True)).reshape(len(small), -1)
        told += points[start : start + _BLOCK].T @ alike
    normal = points.T.astype(np.float64) @ points + RIDGE * np.eye(points.shape[1])
    drawn = np.linalg.solve(normal, told).astype(np.float32).reshape(-1, DRAWN_SIDE, DRAWN_SIDE, 3)
    fine = np.stack([one - cv2.GaussianBlur(one, (0, 0), FINEST) for one in drawn]).astype(np.float32)
    grey = fine.mean(axis=3, keepdims=True)
    return np.asarray(grey + COLOUR * (fine - grey), np.float32)
