"""`rlred play` and `rlred export --space`: the folder of a page that asks an adapter for three budgets at once.

app.py              rlred/publish/app.py, which imports nothing of rlred
page.json           what the page has to know of the run
requirements.txt    what app.py imports, as rlred's own metadata bounds it
README.md           the settings of a Hub Space
adapter/            the exported adapter
base/               the base, where it is one that rlred brings along
"""

import contextlib
import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

from rlred.data.models import NEUTRAL
from rlred.data.prompts import prompts_of_record
from rlred.files import read_record
from rlred.publish.names import Base
from rlred.publish.serving import Served
from rlred.publish.template import default_mode
from rlred.tiny import QUESTIONS, is_embedded, resolve_model

GRADIO = "6.31.0"  # the Space's; the extra `play` takes it
IMPORTED = ("torch", "transformers", "peft", "accelerate")
ADAPTER = ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "tokenizer_config.json")
ADAPTER = (*ADAPTER, "special_tokens_map.json", "chat_template.jinja", "additional_chat_templates")
EXAMPLES = ["A baker sells 12 loaves a day at $3 each. How much does she earn in a week?", "What is 17 * 24 - 9?"]


def write_space(exported: Path, folder: Path, base: Base, template: Served | None, name: str) -> None:
    """Writes the folder of a Space from an exported adapter.

    Raises `ValueError` for an adapter without budgets, and for a base that a Space could not load.
    """
    check_space(base, template, name)
    embedded = is_embedded(base.name) and not base.public
    write_page(exported, folder, template, base=None if embedded else base, name=name)
    if embedded:
        shutil.copytree(resolve_model(base.name), folder / "base")


def check_space(base: Base, template: Served | None, name: str) -> None:
    """Raises `ValueError` for an adapter without budgets, and for a base that a Space could not load."""
    if not (base.public or is_embedded(base.name)):
        raise ValueError(f"--space: nobody else has the base {base.name!r}; name it on the Hub with --base_model")
    if template is None or template.trained is None:
        raise ValueError(f"--space: {name}: {no_budgets(template)}; leave it out")


def no_budgets(template: Served | None) -> str:
    """Why there is no page for an adapter that was trained on no number of tokens."""
    trained = "no budget was trained" if template is None else "efforts were trained, and no number of tokens"
    return f"{trained}, and the page asks for budgets"


def write_page(exported: Path, folder: Path, template: Served | None, *, base: Base | None, name: str) -> None:
    """The same without a copy of the base: of the Hub, a folder of this machine, or None for base/ beside app.py."""
    if template is None or template.trained is None:
        raise ValueError(f"{name}: {no_budgets(template)}")
    record = read_record(exported / "run.json")
    asked, arguments = prompts_of_record(record), record["arguments"]
    # Those that take a number of tokens, the one that a server would choose first.
    modes = sorted({"exact", "max"} & set(template.modes), key=lambda mode: mode != default_mode(template.modes))
    source = QUESTIONS.get(arguments.get("questions"))
    about = {
        "title": name,
        "base": base and base.name,
        "revision": base and base.revision,
        "sampling": NEUTRAL,
        "dtype": (record.get("model") or {}).get("dtype") or "auto",
        "modes": modes,
        "trained": list(template.trained),
        "budget": template.variables.budgets[0],
        "mode": template.variables.mode,
        "settings": template.settings,
        "system": asked.system_prompt,
        "temperature": float((record.get("training") or {}).get("temperature") or 1.0),
        "examples": [row["question"] for row in source(3, split="test", seed=0)] if source else EXAMPLES,
    }
    (folder / "adapter").mkdir(parents=True)
    shutil.copyfile(Path(__file__).with_name("app.py"), folder / "app.py")
    (folder / "page.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(requirements()) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(front_matter(about["title"]), encoding="utf-8")
    for one in ADAPTER:
        if (exported / one).is_dir():
            shutil.copytree(exported / one, folder / "adapter" / one)
        elif (exported / one).is_file():
            shutil.copyfile(exported / one, folder / "adapter" / one)


def requirements() -> list[str]:
    """The lines of requirements.txt: the libraries that app.py imports, within the bounds that rlred has for them."""
    known = {re.match(r"[\w-]+", line)[0]: line for line in requires("rlred") or [] if ";" not in line}
    return [f"gradio=={GRADIO}", *(known[name] for name in IMPORTED)]


def front_matter(title: str) -> str:
    """The README.md of a Space."""
    told = {
        "title": title,
        "emoji": "\N{HOURGLASS WITH FLOWING SAND}",
        "sdk": "gradio",
        "sdk_version": GRADIO,
        "app_file": "app.py",
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in told.items()]
    return (
        "\n".join(["---", *lines, "---", "", f"One question at three budgets, with the adapter `{title}` and without."])
        + "\n"
    )


@contextlib.contextmanager
def played(adapter: str) -> Iterator[Path]:
    """The folder of the page over an adapter of this machine, for as long as the context lasts."""
    from rlred.publish.export import base_of, export
    from rlred.tiny import adapter_folder

    given = adapter_folder(adapter)
    name = given.resolve().name
    with tempfile.TemporaryDirectory(prefix="rlred-play-") as temporary:
        exported = export(given, Path(temporary) / name)
        trained_on = json.loads((given / "adapter_config.json").read_text())["base_model_name_or_path"]
        base = dataclasses.replace(base_of(given), name=resolve_model(trained_on))
        folder = Path(temporary) / "page"
        write_page(exported, folder, Served.of(given, trained_on), base=base, name=name)
        yield folder
