"""Rectangles of patches: into which one K tokens fit, and pictures shrunk to it before the vision tower sees them."""

import math

import torch
import torch.nn.functional as F


def grid_of(k: int, rows: int, columns: int) -> tuple[int, int]:
    """The rectangle of exactly `k` cells within rows x columns whose proportions are nearest; of two the taller one.

    Raises `ValueError` where `k` cells form none, and names the counts next to it that do.

    >>> grid_of(32, 8, 8), grid_of(6, 8, 12)
    ((8, 4), (2, 3))
    """
    grids = [(h, k // h) for h in range(rows, 0, -1) if k % h == 0 and k // h <= columns]
    if k < 1 or not grids:
        fits = sorted({h * w for h in range(1, rows + 1) for w in range(1, columns + 1)}, key=lambda n: (abs(n - k), n))
        raise ValueError(
            f"{k} tokens form no rectangle within {rows} x {columns}; the nearest are {fits[0]}, {fits[1]}"
        )
    return min(grids, key=lambda grid: abs(math.log(grid[0] * columns / (grid[1] * rows))))


def downsample(pixels: torch.Tensor, grid: tuple[int, int], patch: int) -> torch.Tensor:
    """Pictures (B, C, H, W) shrunk by area averaging to `grid` patches: (B, C, grid[0] * patch, grid[1] * patch)."""
    size = (grid[0] * patch, grid[1] * patch)
    return pixels if tuple(pixels.shape[-2:]) == size else F.interpolate(pixels, size, mode="area")
