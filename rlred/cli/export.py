from dataclasses import dataclass
from pathlib import Path

from rlred.flags import option, required


@dataclass(frozen=True)
class Export:
    """An adapter folder with its model card, ready for the Hub.

    rlred export outputs/l1_maxlen
    rlred export outputs/l1_maxlen --base_model me/base --push me/my-adapter
    """

    of: Path = required("Output folder of a finished recipe, or an embedded adapter.", positional=True, metavar="RUN")
    output: Path | None = option(None, "Folder to make (default: exports/<name of the run>).")
    base_model: str | None = option(None, "Hub id of the base (default: the base of the training).")
    merge: bool = option(False, "Also save base and adapter as one model.")
    space: bool = option(False, "Also make a Hub Space that asks the adapter for budgets, in space/.")
    push: str | None = option(None, "Upload to this Hub repository, name/of-it.", metavar="REPO")
    private: bool = option(False, "Make the repository private.")

    def run(self) -> None:
        """Makes a folder for the Hub, and uploads it if asked to."""
        from rlred.publish.export import base_is_local, export, push
        from rlred.tiny import resolve_adapter

        run = Path(resolve_adapter(str(self.of)))
        output = self.output or Path("exports") / run.resolve().name
        if self.push and base_is_local(run, self.base_model):
            raise ValueError(
                "--push: the base of this adapter is a local folder, which nobody else can load; name the base on the "
                "Hub with --base_model"
            )
        folder = export(run, output, base_model=self.base_model, merge=self.merge, space=self.space)
        print(folder)
        if self.space:
            print(f"hf upload NAME {folder / 'space'} . --repo-type space")
        if self.push:
            print(push(folder, self.push, private=self.private))
