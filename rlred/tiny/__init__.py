"""The embedded default: a tiny reasoner and its sums, a tiny viewer and its pictures."""

from pathlib import Path

TINY_REASONER, TINY_VIEWER = "tiny_reasoner", "tiny_viewer"


def resolve_model(name: str) -> str:
    """The folder of the embedded model for `tiny_reasoner` or `tiny_viewer`; any other name is returned as it is.

    In a checkout it lies in data/, in an installed wheel beside this file. Raises `ValueError` where neither is there.
    """
    if name not in (TINY_REASONER, TINY_VIEWER):
        return name
    here = Path(__file__).resolve().parent
    for folder in (here.parents[1] / "data" / name, here / name):
        if (folder / "model.safetensors").is_file():
            return str(folder)
    raise ValueError(f"model_name_or_path={name!r}: the embedded model is missing; make it with recipes/{name}.py")
