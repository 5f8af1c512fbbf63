"""The embedded visual task: on textured ground lie a square and a dot, and questions ask for a colour.

A picture is 64 x 64 pixels, 8 x 8 patches. The ground is a neutral colour under texture and pixel noise; the square and
the small dot have two of six bright colours. So the three families of questions need different amounts of the picture:
the background survives any shrinking, the square needs a few patches, and the dot drowns in the texture as soon as the
picture is shrunk. Each question comes in many wordings, some of which name the other objects too; some wordings and
combinations are never trained on.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PATCH, GRID = 8, 8
SIZE = PATCH * GRID  # pixels
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 170, 50),
    "blue": (40, 70, 230),
    "yellow": (235, 215, 40),
    "purple": (150, 50, 180),
    "cyan": (40, 205, 215),
}
GROUNDS = {"black": (30, 30, 30), "white": (225, 225, 225), "gray": (125, 125, 125), "brown": (120, 80, 40)}
FAMILIES = {"background": ("background", "backdrop"), "square": ("square", "box"), "dot": ("dot", "speck")}
WORDINGS = {
    "train": (
        "what color is the {it} ?",
        "which color does the {it} have ?",
        "name the color of the {it} .",
        "the {it} is what color ?",
        "tell me the color of the {it} .",
        "look at the {it} . what color is it ?",
        "say which color the {it} is .",
        "there is a {other} here , but what color is the {it} ?",
        "not the {other} : what is the color of the {it} ?",
        "ignore the {other} . which color does the {it} have ?",
        "besides the {other} , tell me what color the {it} has .",
    ),
    "test": (
        "which color is the {it} ?",
        "tell me what color the {it} is .",
        "ignore the {other} and name the color of the {it} .",
        "not the {other} : say what color the {it} has .",
        "besides the {other} , which color is the {it} ?",
    ),
    "hard": (  # the object that is asked about comes before the other one, which no training wording does
        "look at the {it} , not the {other} . which color is it ?",
        "there is a {it} here . what color does it have , besides the {other} ?",
    ),
}


@dataclass(frozen=True)
class Style:
    """How a picture is drawn: sides in pixels and strength of texture and noise; the defaults are the task's."""

    sides: tuple[int, ...] = (16,)  # of the square; one is drawn
    dot: int = 4
    noise: float = 1.0
    texture_std: float = 30.0  # of the texture's 4-pixel blocks, out of 255
    pixel_std: float = 12.0


TASK = Style()


@dataclass(frozen=True)
class Scene:
    """A picture, (64, 64, 3) uint8, the colour that answers each family, and the square's side in pixels."""

    pixels: np.ndarray
    colours: dict[str, str]
    side: int


def draw(rng: random.Random, style: Style = TASK) -> Scene:
    """A random scene. Square and dot have different colours and do not touch.

    >>> draw(random.Random(0)).colours
    {'background': 'brown', 'square': 'red', 'dot': 'blue'}
    """
    noise = np.random.default_rng(rng.getrandbits(60))
    ground = rng.choice(list(GROUNDS))
    square, dot = rng.sample(list(COLOURS), 2)
    blocks = noise.normal(0, style.texture_std * style.noise, (SIZE // 4, SIZE // 4, 3))
    image = np.asarray(GROUNDS[ground], dtype=float) + np.kron(blocks, np.ones((4, 4, 1)))
    side = rng.choice(style.sides)
    top, left = (rng.randrange(0, SIZE - side + 1, 2) for _ in range(2))
    image[top : top + side, left : left + side] = COLOURS[square]
    while True:  # the dot lies within one patch
        y, x = (rng.randrange(GRID) * PATCH + rng.randrange(PATCH - style.dot + 1) for _ in range(2))
        if not (-style.dot - 2 <= y - top <= side + 2 and -style.dot - 2 <= x - left <= side + 2):
            break
    image[y : y + style.dot, x : x + style.dot] = COLOURS[dot]
    image += noise.normal(0, style.pixel_std * style.noise, image.shape)
    colours = {"background": ground, "square": square, "dot": dot}
    return Scene(image.clip(0, 255).astype(np.uint8), colours, side)


def wordings(family: str, split: str) -> list[str]:
    """Every question of a family in a split.

    >>> wordings("dot", "test")[:2], len(wordings("dot", "train"))
    (['which color is the dot ?', 'which color is the speck ?'], 46)
    """
    others = [name for other, names in FAMILIES.items() if other != family for name in names]
    found = []
    for wording in WORDINGS[split]:
        for it in FAMILIES[family]:
            fills = others if "{other}" in wording else [""]
            found += [wording.format(it=it, other=other) for other in fills]
    return found


def ask(family: str, split: str, rng: random.Random) -> str:
    """One question of a family: a wording first, so that each is as frequent as the others."""
    wording = rng.choice(WORDINGS[split])
    others = [name for other, names in FAMILIES.items() if other != family for name in names]
    return wording.format(it=rng.choice(FAMILIES[family]), other=rng.choice(others))


def rows(
    n: int,
    split: str,
    seed: int = 0,
    mix: Sequence[str] = tuple(FAMILIES),
    style: Style = TASK,
    wordings: str | None = None,
) -> list[dict]:
    """`n` rows: `question`, `solution`, `family`, `pixels`; the families of `mix` take turns.

    Where squares have several sides, each side is a family of its own: "square of 28".

    Scenes are of `split`, and so are the wordings unless `wordings` names the other one.

    >>> [row["family"] for row in rows(4, "test")]
    ['background', 'square', 'dot', 'background']
    """
    rng = random.Random(f"pictures/{split}/{seed}")
    found = []
    for index in range(n):
        family = mix[index % len(mix)]
        scene = draw(rng, style)
        question = ask(family, wordings or split, rng)
        row = {"question": question, "solution": scene.colours[family], "family": family, "pixels": scene.pixels}
        if family == "square" and len(style.sides) > 1:
            row["family"] = f"square of {scene.side}"
        found.append(row)
    return found
