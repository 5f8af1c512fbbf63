"""A compression run from arguments to measured adapters: traces -> scores -> rows -> LoRA SFT -> evaluation by ratio.

recipes/tokenskip.py calls `main`. In the output folder: traces, scores and rows of every variant, each on disk and not
made twice; the adapter of the scorer, those of the controls in controls/; ratios.json, ratios.md and ratios.png;
measures/ (every completion); run.json (every setting) and trainer_state.json (the training curves).
"""

import time
from pathlib import Path

from accelerate import PartialState
from peft import PeftModel
from trl import ModelConfig, SFTConfig, get_peft_config

from rlred.compression.arguments import CompressionArguments, Variant
from rlred.compression.evaluate import (
    BASE_TITLE,
    TRUNCATION_TITLE,
    measure_ratios,
    ratio_conditions,
    sweep_ratios,
    truncated,
)
from rlred.compression.levels import make_level_rows
from rlred.compression.mixing import Bounds
from rlred.compression.random_cut import make_cut_rows
from rlred.compression.reweighting import Reweight, ShareSampler
from rlred.compression.rows import Cutting, features, make_rows
from rlred.compression.scores import MODEL_FREE, make_scorer
from rlred.compression.stages import rows_stage, scores_stage, traces_stage
from rlred.compression.traces import load_traces, sample_traces
from rlred.evaluation.results import Result, write_result
from rlred.evaluation.sampling import Sampling
from rlred.files import write_json
from rlred.output import check_output_dir, prepare_output_dir
from rlred.runs.arguments import SFT_KINDS
from rlred.runs.audit_only import Audit
from rlred.runs.chassis import check_same_model, command, describe, load_both, load_model, load_outline
from rlred.training.sft import SupervisedTrainer, config_for


def run(
    arguments: CompressionArguments, training: SFTConfig, model_config: ModelConfig, default_output: Path
) -> Result | None:
    """Trains an adapter for the scorer and one for each control; returns the result (None with evaluate=False)."""
    start = time.monotonic()
    check_adapter(model_config)
    questions, held_out = load_both(arguments, training.seed)
    dev = dev_questions(arguments, training, questions)
    model, tokenizer = load_model(model_config, training)
    output, state = prepare_output_dir(training, default_output), PartialState()
    check_same_model(output, model, model_config)
    if state.is_main_process:
        write_json(output / "run.json", describe(default_output.name, arguments, training, model_config, model))
    with state.main_process_first():  # the others find what it has made
        traces = traces_stage(
            output / "traces.jsonl", lambda: make_traces(arguments, training, model, tokenizer, questions, output)
        )
    bounds = measure_bounds(arguments, model, tokenizer, dev) if dev else None
    kept_back = {row["question"] for row in dev}
    traces = [trace for trace in traces if trace["question"] not in kept_back]
    if not traces:
        raise ValueError(f"num_dev_questions={len(dev)} are all the questions that have traces; keep fewer back")
    blocks = {}
    if arguments.evaluate and state.is_main_process:
        outcomes = sweep(arguments, model, tokenizer, held_out, output, "base")
        blocks["base"] = {"title": BASE_TITLE, "rows": measure_ratios(outcomes)}
    for number, variant in enumerate(arguments.variants()):
        with state.main_process_first():
            rows = make_rows_of(variant, arguments, training, model_config, tokenizer, traces, output)
        folder = output / "controls" / variant.name if number else output
        mixing = make_mixing(arguments, training, rows, tokenizer, dev, bounds, folder) if dev else None
        adapted = train(rows, training, model_config, tokenizer, folder, mixing)
        if arguments.evaluate and state.is_main_process:
            blocks |= measure_variant(variant, number, arguments, adapted, tokenizer, held_out, output)
        state.wait_for_everyone()
    if not blocks:
        return None
    labels = {
        "model": model_config.model_name_or_path,
        "adapter": str(output),
        "seed": training.seed,
        "n_questions": len(held_out),
        "temperature": arguments.eval_temperature,
        "max_completion_length": arguments.max_completion_length,
        "batch_size": arguments.eval_batch_size,
        "trained_ratios": arguments.asked_ratios(),
    }
    result = Result("ratios", labels, blocks, cost={"minutes": round((time.monotonic() - start) / 60, 1)})
    write_result(result, output)
    return result


def audit_only(
    checks: Audit,
    arguments: CompressionArguments,
    training: SFTConfig,
    model_config: ModelConfig,
    default_output: Path,
) -> None:
    """The checks of `run` in its order, and nothing that samples or needs weights."""
    checks.step("output folder", check_output_dir, training, default_output)
    checks.step("adapter", check_adapter, model_config)
    both = checks.step("questions", load_both, arguments, training.seed)
    checks.step("questions", lambda own: dev_questions(arguments, training, own[0]), both)
    outline = checks.step("tokenizer", load_outline, model_config, training)
    asked = checks.step("prompts", lambda own: arguments.make_ratio_format(own[1]), outline)
    if arguments.traces:
        checks.step("traces", lambda own: load_traces(Path(arguments.traces), end=own.prompts.end), asked)


def check_adapter(model_config: ModelConfig) -> None:
    """Raises `ValueError` where no adapter would be trained."""
    if get_peft_config(model_config) is None:
        raise ValueError("use_peft=False: this recipe trains LoRA adapters; set use_peft to true")


def make_traces(arguments, training, model, tokenizer, questions, output: Path) -> tuple[list[dict], dict]:
    """The model's own traces, or those of a file."""
    if arguments.traces:
        end = arguments.make_ratio_format(tokenizer).prompts.end
        return load_traces(Path(arguments.traces), end=end)
    return sample_traces(
        model,
        tokenizer,
        list(questions),
        arguments.make_ratio_format(tokenizer),
        sampling=Sampling(
            arguments.max_completion_length,
            temperature=arguments.trace_temperature,
            batch_size=arguments.eval_batch_size,
            seed=training.seed,
            num_samples=arguments.num_samples,
        ),
        path=output / "traces.completions.jsonl",
    )


def make_rows_of(
    variant: Variant, arguments, training, model_config, tokenizer, traces: list[dict], output: Path
) -> list[dict]:
    """Scores the traces as the variant says and cuts them at every ratio; or drops levels, or cuts at random."""
    path, ratio_format = output / f"rows.{variant.name}.jsonl", arguments.make_ratio_format(tokenizer)
    if variant.scorer == "levels":
        settings = {"draws": arguments.ratios_per_question, "seed": training.seed}
        told = (traces, arguments.levels, tokenizer, ratio_format)
        return rows_stage(path, lambda keep: make_level_rows(*told, **settings, keep=keep))
    if variant.scorer == "random_cut":
        settings = {"draws": arguments.ratios_per_question, "short_share": arguments.short_share, "seed": training.seed}
        told = (traces, tokenizer, ratio_format)
        return rows_stage(path, lambda keep: make_cut_rows(*told, **settings, keep=keep))
    own = None if variant.scorer in (*MODEL_FREE, "llmlingua2") else model_config.model_name_or_path
    scorer_model, dtype = arguments.scorer_model or own, model_config.dtype or "float32"
    asked = None if arguments.scorer_model else ratio_format.prompts  # another model has other settings
    scorer = make_scorer(variant.scorer, scorer_model, seed=training.seed, dtype=dtype, prompts=asked)
    name = f"{variant.scorer}/{scorer_model or ''}/{training.seed}"
    spans = scores_stage(output / f"scores.{variant.scorer}.jsonl", traces, scorer, name)
    cutting = Cutting(
        arguments.ratios,
        arguments.ratios_per_question,
        tolerance=arguments.tolerance,
        protect=variant.protect,
        ask_ratio=arguments.ask_ratio,
        difficulty=arguments.difficulty,
        short_share=None if arguments.reweight_steps else arguments.short_share,  # the sampler draws that share
        seed=training.seed,
    )
    return rows_stage(path, lambda keep: make_rows(traces, spans, cutting, tokenizer, ratio_format, keep))


def dev_questions(arguments, training: SFTConfig, questions) -> list[dict]:
    """What TL;DR's re-weighting is to measure on; none without it. Raises `ValueError` where it cannot be done."""
    if not arguments.reweight_steps:
        return []
    if training.packing:
        raise ValueError("packing=True: reweight_steps draws row by row; set packing to false")
    if len(questions) <= arguments.num_dev_questions:
        raise ValueError(
            f"num_dev_questions={arguments.num_dev_questions} leaves no training question of {len(questions)}"
        )
    return list(questions)[-arguments.num_dev_questions :]


def measure_bounds(arguments, model, tokenizer, dev: list[dict]) -> Bounds:
    """What TL;DR's rule moves between: the base as it thinks, and its thinking cut off at the smallest ratio."""
    outcomes = think_freely(arguments, model, tokenizer, dev)
    cut_off = truncated(
        model,
        tokenizer,
        dev,
        outcomes,
        arguments.make_ratio_format(tokenizer),
        ratios=[min(arguments.ratios)],
        batch_size=arguments.eval_batch_size,
    )
    spent = "mean_thinking_length"
    [long], [short] = measure_ratios(outcomes), measure_ratios(cut_off, full=outcomes)
    return Bounds(short[spent], long[spent], short["accuracy"], long["accuracy"])


def think_freely(arguments, model, tokenizer, questions: list[dict]) -> list[dict]:
    """The questions, asked for no ratio."""
    conditions = ratio_conditions(arguments.make_ratio_format(tokenizer), [1.0])
    return sweep_ratios(model, tokenizer, questions, conditions, sampling=sampling_of(arguments))


def sampling_of(arguments) -> Sampling:
    """How every sweep samples; its seed is always 0."""
    return Sampling(arguments.max_completion_length, arguments.eval_temperature, arguments.eval_batch_size)


def make_mixing(arguments, training, rows, tokenizer, dev, bounds: Bounds, folder: Path) -> Reweight:
    """TL;DR's re-weighting of these rows; its sampler is theirs."""

    def measure(model) -> tuple[float, float]:
        [row] = measure_ratios(think_freely(arguments, model, tokenizer, dev))
        return row["mean_thinking_length"], row["accuracy"]

    sampler = ShareSampler([row["ratio"] for row in rows], arguments.short_share, training.seed)
    path, steps = folder / "shares.json", arguments.reweight_steps
    return Reweight(sampler, measure, bounds, path, steps=steps, rate=arguments.reweight_rate)


def train(
    rows: list[dict], training: SFTConfig, model_config: ModelConfig, tokenizer, folder: Path, mixing: Reweight | None
):
    """LoRA SFT of a fresh base; an adapter that is there already is loaded, an interrupted training goes on."""
    model, _ = load_model(model_config, training)
    if (folder / "adapter_model.safetensors").exists():
        return PeftModel.from_pretrained(model, folder)
    trainer = SupervisedTrainer(
        model=model,
        args=config_for(training, folder),
        train_dataset=features(rows, tokenizer),
        processing_class=tokenizer,
        peft_config=get_peft_config(model_config),
        sampler=mixing and mixing.sampler,
        callbacks=[mixing] if mixing else None,
    )
    trainer.fit()
    return trainer.accelerator.unwrap_model(trainer.model)


def sweep(
    arguments: CompressionArguments, model, tokenizer, held_out: list[dict], output: Path, name: str
) -> list[dict]:
    """Every held-out question at every ratio, trained and untrained."""
    return sweep_ratios(
        model,
        tokenizer,
        held_out,
        ratio_conditions(arguments.make_ratio_format(tokenizer), [*arguments.asked_ratios(), *arguments.eval_ratios]),
        sampling=sampling_of(arguments),
        folder=output / "measures" / name,
        description=f"measuring {name}",
    )


def measure_variant(
    variant: Variant, number: int, arguments, model, tokenizer, held_out: list[dict], output: Path
) -> dict:
    """The block of one adapter; the first one's truncation beside it."""
    outcomes = sweep(arguments, model, tokenizer, held_out, output, variant.name)
    blocks = {variant.name: {"title": f"trained on {variant.name}", "rows": measure_ratios(outcomes)}}
    if number == 0:
        cut_off = truncated(model, tokenizer, held_out, outcomes, arguments.make_ratio_format(tokenizer))
        blocks["truncation"] = {"title": TRUNCATION_TITLE, "rows": measure_ratios(cut_off, full=outcomes)}
    return blocks


def main(recipe: Path) -> int:
    """The command line of a recipe: its YAML, then flags; a wrong value is one clear line and exit status 2."""
    return command(recipe, run, (CompressionArguments, *SFT_KINDS), "ratios.md", audit_only)
