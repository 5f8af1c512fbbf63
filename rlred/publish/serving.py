"""How a published adapter that keeps budgets is served: its chat templates, and the card's section on servers."""

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

from rlred.data.budgets import EFFORTS, asks_tokens
from rlred.data.models import vllm_rank
from rlred.data.prompts import prompts_of_record
from rlred.evaluation.evaluate import efforts_of_record, range_of_record
from rlred.files import read_record
from rlred.publish.names import Base
from rlred.publish.template import Variables, base_template, budget_template, context_length, default_mode


@dataclass(frozen=True)
class Served:
    """The chat templates of an adapter, by name (`default` is the one that is used), and what they were trained for."""

    templates: dict[str, str]
    variables: Variables
    modes: tuple[str, ...]
    trained: tuple[int, int] | None
    """The smallest and the largest number of tokens; None where only efforts were trained."""
    settings: dict
    """The settings of the chat template in training."""

    @classmethod
    def of(cls, run: Path, trained_on: str) -> "Served | None":
        """The templates for a run; None for one that trained no budgets, or whose tokenizer has no template."""
        record = read_record(run / "run.json")
        arguments = record["arguments"]
        modes = tuple(mode for mode, weight in (arguments.get("modes") or {}).items() if weight > 0)
        told = {"trust_remote_code": runs_code(record)}
        tokenizer = AutoTokenizer.from_pretrained(run, **told) if set(modes) - {"free"} else None
        if tokenizer is None or not tokenizer.chat_template:
            return None
        told = tokenizer.chat_template
        bases = {
            name: base_template(text) for name, text in ({"default": told} if isinstance(told, str) else told).items()
        }
        tokenizer.chat_template = bases if isinstance(told, dict) else bases["default"]
        prompts = prompts_of_record(record).fitted(tokenizer)
        low, high = range_of_record(record)
        trained = (low, high) if asks_tokens(modes) else None
        largest = max(context_length(trained_on, runs_code(record)), high)
        told = {"largest": largest, "trained": trained, "efforts": efforts_of_record(record)}
        made = {name: budget_template(text, prompts, modes, **told) for name, text in bases.items()}
        variables = Variables.beside(next(iter(bases.values())))
        return cls(made, variables, modes, trained, prompts.chat_template_kwargs)

    def write(self, folder: Path) -> None:
        """Writes the templates into a folder that holds the tokenizer, where transformers and servers look for them."""
        for name, text in self.templates.items():
            alone = name == "default" or len(self.templates) == 1
            path = folder / ("chat_template.jinja" if alone else f"additional_chat_templates/{name}.jinja")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text.encode())
        config = folder / "tokenizer_config.json"
        told = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        if told.pop("chat_template", None) is not None:  # older folders say it there; one of the two would be wrong
            config.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def request(self, name: str) -> dict:
        """A request for the largest trained budget, or a low effort, as every OpenAI-compatible server takes it."""
        asked = {self.variables.effort: "low"}
        if self.trained:
            asked = {self.variables.budgets[0]: self.trained[1], self.variables.mode: default_mode(self.modes)}
        messages = [{"role": "user", "content": "What is 2+2?"}]
        return {"model": name, "messages": messages, "chat_template_kwargs": {**self.settings, **asked}}


def runs_code(record: dict) -> bool:
    """Whether a run was allowed to run the code that its model brings along, from its run.json."""
    return (record.get("training") or {}).get("trust_remote_code") is True


def vllm(name: str, base: Base, rank: int) -> str:
    """The command that serves an adapter with its own template; where it is not told, vLLM has room for rank 16.

    >>> print(vllm("me", Base("org/base", True), 20))
    vllm serve org/base --enable-lora --max-lora-rank 32 --lora-modules me=me \\
      --chat-template me/chat_template.jinja
    """
    larger = f" --max-lora-rank {vllm_rank(rank)}" if rank > 16 else ""
    return (
        f"vllm serve {base.flags} --enable-lora{larger} --lora-modules {name}={name} \\\n"
        f"  --chat-template {name}/chat_template.jinja"
    )


def served(template: Served, name: str, base: Base, rank: int) -> list[str]:
    """The card's section: one request, and how each server is started so that it reads the folder's template."""
    budget, alias = template.variables.budgets
    mode, request = template.variables.mode, json.dumps(template.request(name))
    others = [one for one in template.modes if one not in ("free", "effort", default_mode(template.modes))]
    choice = f"`{mode}` is `{default_mode(template.modes)}` where the request does not say"
    choice += "".join(f", `{one}` was trained as well" for one in others)
    told = []
    if template.trained:
        told.append(
            f"the number of tokens as `{budget}` (`{alias}` is read where that is missing). {choice}; `free` takes no "
            "number."
        )
    if "effort" in template.modes:
        names = ", ".join(f"`{word}` is {value:g}" for word, value in EFFORTS.items())
        told.append(
            f"an effort as `{template.variables.effort}`, a number above 0 and at most 1 or its name: {names} of what "
            "the question takes; the table of calibration says what each came to."
        )
    return [
        "## How to serve",
        f"The chat template of this folder writes those words itself. Send the question alone, and {' Or '.join(told)} "
        "Without these variables the template is that of the base. A value that is none is refused with a sentence.",
        "    curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"      -d '{_quoted(request)}'",
        "The servers below take this request; SGLang is asked for the adapter on its base as "
        f'`"model": "{base.name}:{name}"`. A LoRA adapter is served with the template of the *base*, unless the '
        "command names this one; merged weights (`rlred export --merge`) bring it along.",
        f"""\
{textwrap.indent(vllm(name, base, rank), "    ")}
    python -m sglang.launch_server --port 8000 --model-path {base.flags} --enable-lora \\
      --lora-paths {name}={name} --chat-template {name}/chat_template.jinja
    transformers serve {name}/merged""",
        "What is asked for is a request that the model was trained to keep, not a limit. Where one is needed, set that "
        "of the server (`max_tokens`, or a limit of thinking tokens) somewhat above it.",
    ]


def _quoted(text: str) -> str:
    """A text between single quotes of a shell."""
    return text.replace("'", "'\\''")
