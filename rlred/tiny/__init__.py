"""The embedded models: a reasoner with its sums, a talker that says more than it needs, a viewer with its pictures."""

from pathlib import Path

TINY_REASONER, TINY_TALKER, TINY_VIEWER = "tiny_reasoner", "tiny_talker", "tiny_viewer"


def resolve_model(name: str) -> str:
    """The folder of an embedded model, `tiny_reasoner`, `tiny_talker` or `tiny_viewer`; any other name as it is.

    In a checkout it lies in data/, in an installed wheel beside this file. Raises `ValueError` where neither is there.
    """
    if name not in (TINY_REASONER, TINY_TALKER, TINY_VIEWER):
        return name
    here = Path(__file__).resolve().parent
    for folder in (here.parents[1] / "data" / name, here / name):
        if (folder / "model.safetensors").is_file():
            return str(folder)
    raise ValueError(f"model_name_or_path={name!r}: the embedded model is missing; make it with rlred make {name}")
