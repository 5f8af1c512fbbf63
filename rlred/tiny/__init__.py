"""The embedded models, and the embedded questions by name.

tiny_reasoner   adds numbers and counts its tokens aloud
tiny_sorter     sorts numbers and does not count
tiny_verbose    says more than it needs
tiny_vlm        answers questions about small pictures

Adapters of the reasoner: l1_maxlen and l1_exact keep to a number of tokens, l1_effort to an effort.
"""

import functools
from collections.abc import Callable
from pathlib import Path

from rlred.names import MODELS, refuse
from rlred.tiny import sorting, sums

TINY_REASONER, TINY_SORTER, TINY_VERBOSE, TINY_VLM = "tiny_reasoner", "tiny_sorter", "tiny_verbose", "tiny_vlm"
EMBEDDED = (TINY_REASONER, TINY_SORTER, TINY_VERBOSE, TINY_VLM)
# Question rows by the name of a source: (n, split, seed) -> rows.
QUESTIONS: dict[str, Callable[..., list[dict]]] = {
    **{family: functools.partial(sums.questions, family=family) for family in sums.FAMILIES},
    sorting.FAMILY: sorting.questions,
}
L1_MAXLEN = "l1_maxlen"
ADAPTERS = (L1_MAXLEN, "l1_exact", "l1_effort")


def resolve_model(name: str) -> str:
    """The folder of an embedded model (`tiny_reasoner`, `tiny_vlm`, ...); any other name as it is.

    In a checkout it lies in data/, in an installed wheel beside this file. A published adapter records its base as it
    is called in a checkout, `data/tiny_reasoner`: that is the embedded one in every other folder too. Raises
    `ValueError` where neither is there, and for the name that a model had before.

    >>> resolve_model("data/tiny_reasoner") in ("data/tiny_reasoner", resolve_model("tiny_reasoner"))
    True
    """
    own = name if Path(name).is_dir() else name.removeprefix("data/")
    if not Path(name).is_dir():
        refuse([own], MODELS, "model_name_or_path: ")
    if own not in EMBEDDED:
        return name
    found = _embedded(own, "model.safetensors")
    if found is None:
        raise ValueError(f"model_name_or_path={name!r}: the embedded model is missing; make it with rlred make {own}")
    return found


def is_embedded(name: str) -> bool:
    """Whether a name is that of an embedded model, as it is called in a checkout or by itself."""
    return name.removeprefix("data/") in EMBEDDED


def resolve_adapter(name: str) -> str:
    """The folder of an embedded adapter (`l1_maxlen`, `l1_exact`, `l1_effort`); any other name as it is.

    >>> resolve_adapter("outputs/mine")
    'outputs/mine'
    """
    return (_embedded(name, "adapter_model.safetensors") if name in ADAPTERS else None) or name


def adapter_folder(name: str) -> Path:
    """`resolve_adapter` of an adapter of this machine. Raises `ValueError` where there is no such folder."""
    folder = Path(resolve_adapter(name))
    if not folder.is_dir():
        known = ", ".join(ADAPTERS)
        raise ValueError(f"{name}: there is no such folder; name an adapter's, or an embedded one ({known})")
    return folder


def _embedded(name: str, weights: str) -> str | None:
    here = Path(__file__).resolve().parent
    folders = (here.parents[1] / "data" / name, here / name)
    return next((str(folder) for folder in folders if (folder / weights).is_file()), None)
