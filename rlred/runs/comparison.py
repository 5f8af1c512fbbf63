"""Several ways of one experiment, each with several seeds, side by side in one table.

Each run leaves result.json in `<folder>/<variant>-<seed>/`; what is there is not run again, so a comparison that was
interrupted goes on.
"""

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean

import torch
from peft import get_peft_model
from trl import ModelConfig, SFTConfig, get_peft_config

from rlred.data.models import Loading, load_model
from rlred.evaluation.markdown import table
from rlred.files import write_json, write_text
from rlred.output import claim
from rlred.runs.arguments import SFT_KINDS
from rlred.runs.audit_only import Audit
from rlred.runs.chassis import command, describe, load_outline

logger = logging.getLogger(__name__)


def run_variants(
    folder: Path, variants: Iterable[str], seeds: Iterable[int], run: Callable[[str, int, Path], dict]
) -> dict[str, list[dict]]:
    """The results of every variant, one per seed; `run(variant, seed, output)` makes those that are not there yet."""
    results: dict[str, list[dict]] = {}
    for seed in seeds:
        for variant in variants:
            output = folder / f"{variant}-{seed}"
            path = output / "result.json"
            if not path.exists():
                logger.info("%s, seed %d", variant, seed)
                write_json(path, run(variant, seed, output))
            results.setdefault(variant, []).append(json.loads(path.read_text()))
    return results


def to_markdown(results: dict[str, list[dict]], digits: int = 3) -> str:
    """A line per variant: the mean over its seeds of every number in its results, and each seed's where it has several.

    >>> print(to_markdown({"a": [{"accuracy": 0.5}, {"accuracy": 0.75}]}))
    | | accuracy |
    |---|---|
    | a | 0.625 (0.5 0.75) |
    """
    names = [name for name, value in next(iter(results.values()))[0].items() if isinstance(value, int | float)]
    lines = []
    for variant, rows in results.items():
        cells = []
        for name in names:
            values = [round(row[name], digits) for row in rows]
            each = f" ({' '.join(f'{value:g}' for value in values)})" if len(values) > 1 else ""
            cells.append(f"{round(fmean(row[name] for row in rows), digits):g}{each}")
        lines.append([variant, *cells])
    return "\n".join(table(["", *names], lines))


def fresh_model(model_config: ModelConfig, training: SFTConfig, seed: int):
    """The base that a recipe names, with a new adapter if one is asked for; and its tokenizer."""
    loading = Loading.of(model_config, trust_remote_code=training.trust_remote_code)
    model, tokenizer = load_model(model_config.model_name_or_path, None, loading, field="model_name_or_path")
    torch.manual_seed(seed)
    peft_config = get_peft_config(model_config)
    return (get_peft_model(model, peft_config) if peft_config else model), tokenizer


def main_of(recipe: Path, arguments_kind: type, experiment: type) -> int:
    """The command line of an SFT recipe with variants.

    `arguments_kind` has the fields `variants` and `seeds`; `experiment(arguments, training, model_config)` has the
    method `run` that `run_variants` calls, and `check`, which raises `ValueError` for rows that it cannot train on.
    """

    def run(told, training: SFTConfig, model_config: ModelConfig, default_output: Path) -> dict:
        if training.output_dir in (None, "trainer_output"):
            training.output_dir = str(default_output)
        folder, one = Path(training.output_dir), experiment(told, training, model_config).run
        claim(folder)
        record = describe(default_output.name, told, training, model_config)

        def run_one(variant: str, seed: int, output: Path) -> dict:
            result = one(variant, seed, output)
            if (output / "adapter_model.safetensors").is_file():  # what `rlred export` reads
                trained = {**record["training"], "seed": seed}
                write_json(output / "run.json", {**record, "variant": variant, "training": trained})
            return result

        results = run_variants(folder, told.variants, told.seeds, run_one)
        write_text(folder / "table.md", to_markdown(results) + "\n")
        return results

    def audit_only(checks: Audit, told, training: SFTConfig, model_config: ModelConfig, default_output: Path) -> None:
        outline = checks.step("tokenizer", load_outline, model_config, training)
        checks.step("rows", lambda own: experiment(told, training, model_config).check(own[1]), outline)

    return command(recipe, run, (arguments_kind, *SFT_KINDS), "table.md", audit_only, shares=True)
