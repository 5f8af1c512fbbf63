"""The embedded default: a tiny reasoner and the sums it reasons about, and a talker that says more than it needs."""

from pathlib import Path

TINY_REASONER = "tiny_reasoner"
TINY_TALKER = "tiny_talker"


def resolve_model(name: str) -> str:
    """The folder of the embedded model for `tiny_reasoner` or `tiny_talker`; any other name is returned as it is.

    In a checkout it lies in data/, in an installed wheel beside this file. Raises `ValueError` where neither is there.
    """
    if name not in (TINY_REASONER, TINY_TALKER):
        return name
    here = Path(__file__).resolve().parent
    for folder in (here.parents[1] / "data" / name, here / name):
        if (folder / "model.safetensors").is_file():
            return str(folder)
    raise ValueError(f"model_name_or_path={name!r}: the embedded model is missing; make it with recipes/{name}.py")
