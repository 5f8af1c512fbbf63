"""Rows with pictures: `question`, `solution`, `family` and `image`, from the embedded task, a file or the Hub."""

from collections.abc import Sequence

from datasets import Dataset, Image
from PIL.Image import fromarray

from rlred.data.golds import solution_of, value_at
from rlred.data.question_table import uniform
from rlred.data.questions import QUESTION_COLUMNS, SOLUTION_COLUMNS, find_column, read_source
from rlred.tiny import pictures

COLUMNS = ("prompt", "images", "solution", "family")  # of the rows that are trained on


def load_rows(
    source: str,
    *,
    limit: int,
    split: str = "train",
    seed: int = 0,
    mix: Sequence[str] = (),
    wordings: str = "train",
    instruction: str = "",
    square_sides: Sequence[int] = (),
) -> list[dict]:
    """Up to `limit` rows; `family` is "all" where the source has no such column.

    The embedded source is `pictures`; its families take turns as in `mix` (default: each once), so that any stretch of
    rows has the mix, and `wordings` are the train or test wordings of the questions. Raises `ValueError` for a source
    that cannot be read or is empty, an unknown family, and rows without an image. `instruction` follows each question
    of another source; `square_sides` are those of the embedded pictures, one of which is drawn.
    """
    if source == "pictures":
        mix = tuple(mix) or tuple(pictures.FAMILIES)
        if unknown := sorted(set(mix) - set(pictures.FAMILIES)):
            raise ValueError(
                f"family_mix: no family is called {unknown[0]!r}; there are {', '.join(pictures.FAMILIES)}"
            )
        style = pictures.Style(sides=tuple(square_sides)) if square_sides else pictures.TASK
        drawn = pictures.rows(limit, split, seed, mix, style, wordings)
        return [{"image": fromarray(row.pop("pixels")), **row} for row in drawn]
    raw, names = read_source(source, split, None)
    question = find_column(names, None, QUESTION_COLUMNS, source, "question_column")
    solution = find_column(names, None, SOLUTION_COLUMNS, source, "solution_column")
    image = find_column(names, None, ("image", "images"), source, "image_column")
    if hasattr(raw, "cast_column") and image == "image":
        raw = raw.cast_column(image, Image())
    rows = []
    for index in range(min(limit, len(raw))):
        found = raw[index].get(image)
        found = found[0] if isinstance(found, list) and found else found
        if not found:
            raise ValueError(f"{source}: row {index} has no image; give it one in the column image")
        gold = solution_of(value_at(raw[index], solution))
        if gold is None:
            raise ValueError(f"{source}: row {index} has no answer to compare with")
        text = f"{raw[index][question].replace('<image>', '').strip()}\n{instruction}".strip()
        rows.append({"image": found, "question": text, "solution": gold, "family": raw[index].get("family") or "all"})
    if not rows:
        raise ValueError(f"{source}: split {split!r} has no rows")
    return uniform(rows)


def training_rows(rows: list[dict], images_per_row: int) -> Dataset:
    """What TRL trains on: conversations, and each picture as often as a policy's row brings it."""
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": row["question"]}],
                "images": [row["image"]] * images_per_row,
                "solution": row["solution"],
                "family": row["family"],
            }
            for row in rows
        ]
    )
