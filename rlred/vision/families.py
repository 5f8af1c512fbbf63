"""What differs between model families: where an image's features, pixels, grid and positions are.

A piece is what one run of image tokens stands for: an image, or a tile where the model cuts images into tiles.
"""

import math
from itertools import groupby

import torch

from rlred.vision.grid import downsample, grid_of
from rlred.vision.reduce import Plan


class Llava:
    """LLaVA: one entry of features per image; pixels (images, C, H, W)."""

    def __init__(self, model):
        self.core, self.config = model.model, model.config

    def pieces(self, output) -> tuple[list[torch.Tensor], list[int] | None]:
        """The features (N, width) of each piece, and its row where the model says it."""
        return list(output.pooler_output), None

    def put_back(self, output, plans: list[Plan | None]) -> None:
        """Replaces the features of every piece by its reduction."""
        output.pooler_output = _applied(plans, output.pooler_output)

    def grid(self, given: dict, piece: int) -> tuple[int, int]:
        """Rows and columns of the piece's tokens."""
        patch = self.config.vision_config.patch_size
        height, width = given["pixel_values"].shape[-2:]
        return height // patch, width // patch

    def pixels(self, given: dict) -> list[torch.Tensor]:
        """The pixels of each piece."""
        return list(given["pixel_values"])

    def received(self, output) -> torch.Tensor | None:
        """The attention that each token received in the layer whose features are used, (pieces, N)."""
        if not output.attentions:
            return None
        layer = self.config.vision_feature_layer
        attention = output.attentions[layer if isinstance(layer, int) else layer[-1]].float()  # (pieces, heads, P, P)
        received = attention.mean((1, 2))
        return received[:, 1:] if self.config.vision_feature_select_strategy == "default" else received

    def downsampled(self, given: dict, counts: list[int]):
        """Features of the pictures shrunk to `counts` patches each, and the middles of those patches as plans."""
        rows, columns = self.grid(given, 0)
        patch, pixels = self.config.vision_config.patch_size, given["pixel_values"]
        features, output = [None] * len(counts), None
        for k in sorted(set(counts) - {0}) or [1]:
            grid, some = grid_of(k, rows, columns), [image for image, n in enumerate(counts) if n == k] or [0]
            pictures = {**given, "pixel_values": downsample(pixels[some], grid, patch), "return_dict": True}
            whole = k == rows * columns
            output = self.core.get_image_features(**pictures, **({} if whole else {"interpolate_pos_encoding": True}))
            for image, feature in zip(some, output.pooler_output, strict=True):
                features[image] = feature[: counts[image]]
        output.pooler_output = [feature for feature in features if feature is not None]
        return output, [Plan(_middles(grid_of(k, rows, columns), rows, columns)) if k else None for k in counts]

    def positions(self, input_ids, attention_mask, given, reads, plans) -> torch.Tensor | None:
        """Positions (3, B, T) of a model with M-RoPE, those of kept tokens as they were among all N; else None."""
        return None


class Tiles(Llava):
    """SmolVLM and Idefics3: one entry per row, all tiles of its images in a row; pixels (rows, tiles, C, H, W)."""

    def pieces(self, output):
        split = [features.split(self.core.image_seq_len) for features in output.pooler_output]
        tiles = [tile for row in split for tile in row if len(tile)]
        return tiles, [row for row, some in enumerate(split) for tile in some if len(tile)]

    def put_back(self, output, plans):
        tiles, _ = self.pieces(output)
        output.pooler_output = _applied(plans, tiles)

    def grid(self, given, piece):
        side = math.isqrt(self.core.image_seq_len)
        return side, side

    def pixels(self, given):
        return [tile for row in given["pixel_values"] for tile in row if (tile != 0).any()]


class Qwen(Llava):
    """Qwen2.5-VL and Qwen3-VL: one entry per image, deepstack features beside it, and M-RoPE positions."""

    def put_back(self, output, plans):
        super().put_back(output, plans)
        if getattr(output, "deepstack_features", None) is not None:
            output.deepstack_features = [_applied(plans, layer) for layer in output.deepstack_features]

    def grid(self, given, piece):
        merge = self.config.vision_config.spatial_merge_size
        time, height, width = given["image_grid_thw"][piece].tolist()
        return time * height // merge, width // merge

    def pixels(self, given):
        return list(given["pixel_values"].split(given["image_grid_thw"].prod(-1).tolist()))

    def positions(self, input_ids, attention_mask, given, reads, plans):
        # Each row is laid out with all N tokens of its images, the model's own function gives the positions of that
        # layout, and those of the kept tokens are taken from it.
        token, sizes = self.config.image_token_id, [math.prod(self.grid(given, i)) for i in range(len(plans))]
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        positions = torch.zeros(3, *input_ids.shape, dtype=torch.long, device=input_ids.device)
        deltas = []
        for row, ids in enumerate(input_ids):
            kept_ids = ids[mask[row].bool()]
            images = iter([i for i, (owner, k) in enumerate(reads) if owner == row and k])
            used, layout, taken = [], [], []
            for is_image, run in groupby(kept_ids.tolist(), lambda t: t == token):
                length = len(list(run))
                while is_image and length:
                    image = next(images)
                    taken += [len(layout) + i for i in plans[image].index.tolist()]
                    layout += [token] * sizes[image]
                    length -= len(plans[image].index)
                    used.append(image)
                taken += range(len(layout), len(layout) + length)
                layout += [0] * length
            laid_out = torch.tensor([layout], device=input_ids.device)
            whole, _ = self.core.get_rope_index(
                laid_out,
                mm_token_type_ids=(laid_out == token).int(),
                image_grid_thw=given["image_grid_thw"][used] if used else None,
            )
            own = whole[:, 0, taken]
            positions[:, row, mask[row].bool()] = own
            deltas.append(own.max() + 1 - len(kept_ids))
        self.core.rope_deltas = torch.stack(deltas)[:, None]
        return positions


FAMILIES = {"llava": Llava, "smolvlm": Tiles, "idefics3": Tiles, "qwen2_5_vl": Qwen, "qwen3_vl": Qwen}


def _applied(plans, features) -> list[torch.Tensor]:
    """The reductions of the pieces that are read; one empty piece where none is."""
    found = [plan.apply(piece) for plan, piece in zip(plans, features, strict=True) if plan is not None]
    return found or [features[0][:0]]


def _middles(grid: tuple[int, int], rows: int, columns: int) -> torch.Tensor:
    """The position, among rows x columns, in the middle of each cell of a grid."""
    ys = (torch.arange(grid[0]) * 2 + 1) * rows // (2 * grid[0])
    xs = (torch.arange(grid[1]) * 2 + 1) * columns // (2 * grid[1])
    return (ys[:, None] * columns + xs).flatten()
