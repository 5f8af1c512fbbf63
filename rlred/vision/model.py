"""Models from which visual tokens are really gone: K placeholders in `input_ids`, K features behind them.

    sparse = SparseVision(model, Reducer("maxmin"))

From then on the model reads from `input_ids` how many tokens each image may have, in `generate` and in every forward
alike: a run of K image tokens gets the K features that the reducer makes of that image's N. Sequences, KV cache and
attention are that much shorter, and no argument has to travel through TRL or PEFT. Kept tokens keep the positions that
they had among all N (M-RoPE), and deepstack features are cut by the same plan. At K = N nothing changes.

It encodes the images first and hands the model what transformers calls `mm_encoder_outputs`: by a hook before the
forward of the inner model, and by a wrapper around `generate`.
"""

import functools
import inspect
import zlib
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch

from rlred.vision.families import FAMILIES
from rlred.vision.reduce import Plan, Reducer


@dataclass(frozen=True)
class Seen:
    """What the last forward read of one image, or of one tile where a model cuts images into tiles."""

    row: int
    grid: tuple[int, int]  # its rows and columns
    index: torch.Tensor  # the kept positions among them, (K,)

    @property
    def full(self) -> int:
        """All its tokens, N."""
        return self.grid[0] * self.grid[1]


class SparseVision:
    """Makes a model see as many tokens of each image as `input_ids` have placeholders for it.

    Images and runs of image tokens are matched in order. With `images_per_row`, each row has so many images, and those
    without placeholders are not read: so a row that uses no picture may stand in a batch. Images must not
    touch in `input_ids` unless all are whole, or nobody can tell how many tokens each has. `seen` says what was read
    last.

    Raises `ValueError` for a model that is not supported or is reduced already, and in a forward whose placeholders and
    images do not fit: an image token that the policy sampled, a prompt cut through its images, no image at all.
    """

    def __init__(self, model, reducer: Reducer | None = None, images_per_row: int | None = None):
        model = model.get_base_model() if hasattr(model, "get_base_model") else model  # of a PEFT adapter
        kind = getattr(model.config, "model_type", None)
        self.reducer = reducer or Reducer()
        if kind not in FAMILIES:
            raise ValueError(
                f"visual tokens of model type {kind!r} cannot be reduced; supported: {', '.join(FAMILIES)}"
            )
        if hasattr(model, "sparse_vision"):
            raise ValueError("the visual tokens of this model are reduced already; load it again for another reducer")
        if self.reducer.strategy == "downsample" and kind != "llava":
            raise ValueError(f"strategy='downsample' works inside LLaVA only; for {kind!r} make the pictures smaller")
        if self.reducer.score == "attention" and kind != "llava":
            raise ValueError(f"score='attention' can be had from LLaVA's tower only, not from that of {kind!r}")
        if images_per_row is not None and images_per_row < 1:
            raise ValueError(f"images_per_row must be 1 or more, or None; got {images_per_row!r}")
        self.core, self.family, self.images_per_row = model.model, FAMILIES[kind](model), images_per_row
        self.image_token = model.config.image_token_id
        self.seen: list[Seen] = []
        self.inputs = tuple(inspect.signature(self.core.get_image_features).parameters)
        self.core.register_forward_pre_hook(self._before_forward, with_kwargs=True)
        model.generate = self._around_generate(model.generate)
        suppressed = model.generation_config.suppress_tokens or []
        model.generation_config.suppress_tokens = [*suppressed, self.image_token]  # a sampled one would have no image
        model.sparse_vision = self

    def _before_forward(self, module, args, kwargs):
        """Encodes and reduces, so that the stock forward finds features and positions ready."""
        input_ids = args[0] if args else kwargs.get("input_ids")
        if kwargs.get("pixel_values") is None:
            cache = kwargs.get("cache", kwargs.get("past_key_values"))  # its name from transformers 5.24 on, and before
            prefill = cache is None or cache.get_seq_length() == 0
            if prefill and not kwargs.get("mm_encoder_outputs") and input_ids is not None:
                match(self._runs(input_ids), [], None, False)  # image tokens, but no image
            return None
        encoded, positions = self._encode(input_ids, kwargs.get("attention_mask"), kwargs)
        kwargs = {**kwargs, "pixel_values": None, "mm_encoder_outputs": {"image": encoded}}
        if positions is not None:
            # TRL makes mm_token_type_ids of the prompt; where the image follows later, they are of another length.
            kwargs |= {"position_ids": positions, "mm_token_type_ids": None}
        return args, kwargs

    def _around_generate(self, generate):
        @functools.wraps(generate)
        @torch.no_grad()
        def wrapped(inputs=None, **kwargs):
            if kwargs.get("pixel_values") is not None:
                input_ids = kwargs["input_ids"] if inputs is None else inputs
                mask = kwargs.get("attention_mask")
                encoded, positions = self._encode(input_ids, mask, kwargs)
                kwargs = {name: value for name, value in kwargs.items() if name not in self.inputs}
                kwargs["mm_encoder_outputs"] = {"image": encoded}
                if positions is not None:
                    text = (torch.ones_like(input_ids) if mask is None else mask).long().cumsum(-1) - 1
                    kwargs["position_ids"] = torch.cat([text.clamp(min=0)[None], positions])  # (4, B, T)
            return generate(inputs, **kwargs)

        return wrapped

    def _encode(self, input_ids, attention_mask, kwargs):
        """What `get_image_features` returns, reduced, and M-RoPE positions (3, B, T) where the model has them."""
        if kwargs.get("pixel_values_videos") is not None:
            raise ValueError("videos are not reduced; pass images")
        given = {name: kwargs[name] for name in self.inputs if kwargs.get(name) is not None}
        runs, pixels = self._runs(input_ids), self.family.pixels(given)
        if self.reducer.strategy == "downsample":
            rows, columns = self.family.grid(given, 0)
            sizes, owners = [rows * columns] * len(pixels), None
        else:
            attentions = {"output_attentions": True} if self.reducer.score == "attention" else {}
            output = self.core.get_image_features(**given, **attentions, return_dict=True)
            pieces, owners = self.family.pieces(output)
            sizes = [len(piece) for piece in pieces]
        if self.images_per_row is not None and owners is None:
            if len(sizes) != len(runs) * self.images_per_row:
                raise ValueError(f"images_per_row={self.images_per_row}, but {len(runs)} rows have {len(sizes)} images")
            owners = [image // self.images_per_row for image in range(len(sizes))]
        reads = match(runs, sizes, owners, skip=self.images_per_row is not None)
        if self.reducer.strategy == "downsample":
            output, plans = self.family.downsampled(given, [k for _, k in reads])
        else:
            plans = [
                self._plan(piece, k, given, image, pixels, output) if k else None
                for image, (piece, (_, k)) in enumerate(zip(pieces, reads, strict=True))
            ]
            self.family.put_back(output, plans)
        self.seen = [
            Seen(row, self.family.grid(given, image), plan.index)
            for image, ((row, _), plan) in enumerate(zip(reads, plans, strict=True))
            if plan is not None
        ]
        return output, self.family.positions(input_ids, attention_mask, given, reads, plans)

    def _plan(self, piece, k, given, image, pixels, output) -> Plan:
        more = {}
        if self.reducer.score == "attention":
            received = self.family.received(output)
            more["received"] = None if received is None else received[image]
        elif self.reducer.score == "random":
            more["seed"] = zlib.crc32(pixels[image].detach().float().cpu().numpy().tobytes())
        return self.reducer.plan(piece, k, self.family.grid(given, image), **more)

    def _runs(self, input_ids) -> list[list[int]]:
        """The lengths of the runs of image tokens in each row."""
        rows = input_ids.tolist()
        return [[len(list(run)) for token, run in groupby(row) if token == self.image_token] for row in rows]


def match(
    runs: list[list[int]], sizes: list[int], owners: list[int] | None, skip: bool = False
) -> list[tuple[int, int]]:
    """The row and the K of each image, from the runs of image tokens in each row and the images' full sizes N.

    `owners` are the rows of the images, where they are known; with `skip`, a row may leave images unread (K = 0).

    >>> match([[4], [2, 2]], [9, 9, 9], None), match([[4], []], [9, 9], [0, 1], skip=True)
    ([(0, 4), (1, 2), (1, 2)], [(0, 4), (1, 0)])
    """
    counted = [(row, k) for row, ks in enumerate(runs) for k in ks]
    if owners is not None:
        waiting = [list(ks) for ks in runs]
        reads = [(row, waiting[row].pop(0) if waiting[row] else 0) for row in owners]
        fits = not any(waiting) and (skip or all(k for _, k in reads))
    elif len(counted) != len(sizes) and sum(k for _, k in counted) == sum(sizes):  # all whole, so they may touch
        rows = [row for row, k in counted for _ in range(k)]
        reads = [(rows[end - 1], size) for end, size in zip(accumulate(sizes), sizes, strict=True)]
        fits = True
    else:
        reads, fits = counted, len(counted) == len(sizes)
    if not fits:
        raise ValueError(
            f"{len(counted)} runs of image tokens for {len(sizes)} images: the policy sampled an image token, a prompt "
            "was cut through its images, or two images touch; suppress the token and leave prompts whole"
        )
    for (row, k), size in zip(reads, sizes, strict=True):
        if k > size:
            raise ValueError(f"row {row} has {k} image tokens side by side for an image of {size} features")
    return reads
