"""The `rlred` command.

rlred evaluate --model tiny_reasoner --adapter outputs/l1_exact --budgets 16 32 64
rlred generate "3+7+2+9=?" --adapter outputs/l1_maxlen --budgets 16 32 64
rlred reference --max_completion_length 90 --output outputs/reference.jsonl
rlred plan --config recipes/l1_maxlen_r1_1.5b.yaml --devices 8 --strategy zero2
rlred table outputs/l1_exact outputs/l1_exact-cold-0
rlred report outputs/l1_exact outputs/l1_maxlen --output outputs/page
rlred compress traces --output work/traces.jsonl
rlred export outputs/l1_maxlen --base_model me/base --push me/my-adapter
"""

import argparse
import dataclasses
import logging
import sys
import warnings
from pathlib import Path

from rlred.compression.commands import add_compress, add_prompt_flags
from rlred.data.budgets import MODES

BASELINES = ("brevity", "truncation", "s1_forcing")
PROMPT_FLAGS = ("system_prompt", "chat_template_kwargs", "end_of_thinking")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="rlred", description="Reasoning length under control.")
    commands = parser.add_subparsers(dest="command", required=True)

    evaluate = commands.add_parser("evaluate", help="sweep budgets with a model and, if given, its adapter")
    evaluate.add_argument(
        "--model",
        nargs="+",
        default=[],
        help="folders, Hub ids, or tiny_reasoner; several are compared (default: the adapter's base, or that)",
    )
    evaluate.add_argument(
        "--adapter", nargs="+", default=[], help="folders or Hub ids of PEFT adapters; measured beside their base"
    )
    evaluate.add_argument("--questions", default="sums", help="sums, a local JSON/JSONL/Parquet/CSV file, or a Hub id")
    evaluate.add_argument("--questions_config", help="configuration name of a Hub dataset")
    evaluate.add_argument("--split", default="test")
    evaluate.add_argument("--question_column")
    evaluate.add_argument("--solution_column")
    evaluate.add_argument("--more_questions", nargs="+", default=[], help="other questions for the first adapter")
    evaluate.add_argument("--num_questions", type=int, default=64)
    evaluate.add_argument("--num_samples", type=int, default=1, help="completions of each question at each budget")
    evaluate.add_argument("--budgets", type=int, nargs="+", default=[], metavar="TOKENS")
    evaluate.add_argument("--modes", nargs="+", default=["exact"], choices=MODES)
    evaluate.add_argument("--baselines", nargs="+", default=[], choices=BASELINES, help="measured on the base as well")
    evaluate.add_argument("--wording", help="preset name, or templates as JSON (default: the adapter's, or l1)")
    add_prompt_flags(evaluate)
    evaluate.add_argument("--paraphrase", metavar="WORDING", help="ask the first adapter in other words, too")
    evaluate.add_argument(
        "--out_of_range", action="store_true", help="also half the smallest and twice the largest trained budget"
    )
    evaluate.add_argument("--max_completion_length", type=int, help="default: twice the largest budget")
    evaluate.add_argument("--row_cap", type=float, metavar="TIMES", help="end max rows at this many times their budget")
    evaluate.add_argument(
        "--require_end_of_thinking", action="store_true", help="an answer without the end of thinking is wrong"
    )
    evaluate.add_argument("--temperature", type=float, default=1.0)
    evaluate.add_argument("--batch_size", type=int, default=128)
    evaluate.add_argument("--dtype", default="float32")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument("--vllm", action="store_true", help="generate with vLLM, which must be installed")
    evaluate.add_argument("--output", type=Path, help="folder for the report (default: the adapter's, if it has none)")
    evaluate.add_argument("--trust_remote_code", action="store_true")
    saved = evaluate.add_argument_group("saved predictions", "measure files of completions instead of a model")
    saved.add_argument(
        "--predictions", type=Path, nargs="+", metavar="FILE", help="JSON Lines, JSON, CSV or Parquet, also .gz"
    )
    saved.add_argument(
        "--columns", nargs="+", default=[], metavar="NAME=COLUMN", help="length=cot_length solution=doc.target ..."
    )
    saved.add_argument(
        "--ratios",
        type=float,
        nargs="+",
        metavar="RATIO",
        help="shares of a question's length at ratio 1, in place of budgets: with --adapter those to ask for, with "
        "--predictions what each file was asked for, 1.0 among them; both write ratios.* and adherence.*",
    )
    saved.add_argument("--prediction_budgets", type=int, nargs="+", metavar="TOKENS", help="one per file")
    saved.add_argument("--tokenizer", help="counts the completions of files that hold no token counts")
    evaluate.set_defaults(call=run_evaluate)

    generate = commands.add_parser("generate", help="ask one question at several budgets and watch")
    generate.add_argument("question")
    generate.add_argument("--model", help="default: the adapter's base, or tiny_reasoner")
    generate.add_argument("--adapter", help="folder or Hub id of a PEFT adapter")
    generate.add_argument("--budgets", type=int, nargs="+", default=[16, 32, 64], metavar="TOKENS")
    generate.add_argument("--mode", default="max", choices=MODES)
    generate.add_argument("--wording", help="preset name, or templates as JSON (default: the adapter's, or l1)")
    add_prompt_flags(generate)
    generate.add_argument("--max_completion_length", type=int, help="default: twice the largest budget")
    generate.add_argument("--temperature", type=float, default=1.0)
    generate.add_argument("--dtype", default="float32")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--trust_remote_code", action="store_true")
    generate.set_defaults(call=run_generate)

    reference = commands.add_parser("reference", help="the base's length and accuracy on each question, as a dataset")
    reference.add_argument("--output", type=Path, required=True, help="JSONL file to make; must not exist")
    reference.add_argument("--model", default="tiny_reasoner", help="a folder, a Hub id, or tiny_reasoner")
    reference.add_argument("--questions", default="sums", help="sums, a local file, or a Hub id")
    reference.add_argument("--questions_config", help="configuration name of a Hub dataset")
    reference.add_argument("--split", default="train")
    reference.add_argument("--question_column")
    reference.add_argument("--solution_column")
    reference.add_argument("--num_questions", type=int, help="default: all; 4,096 embedded ones")
    reference.add_argument("--num_samples", type=int, default=8, help="completions of each question")
    reference.add_argument("--max_completion_length", type=int, required=True, help="where a completion is cut")
    reference.add_argument("--wording", default="l1", help="preset name, or templates as JSON")
    add_prompt_flags(reference)
    reference.add_argument("--temperature", type=float, default=1.0)
    reference.add_argument("--batch_size", type=int, default=128)
    reference.add_argument("--dtype", default="float32")
    reference.add_argument("--seed", type=int, default=0)
    reference.add_argument("--trust_remote_code", action="store_true")
    reference.set_defaults(call=run_reference)

    plan = commands.add_parser("plan", help="memory per device and tokens per step of a recipe, before it is started")
    plan.add_argument("--config", type=Path, required=True, help="the recipe's YAML")
    plan.add_argument("--model", help="1.5B, 7B, 32B, a folder or a Hub id (default: the recipe's)")
    plan.add_argument("--devices", type=int, default=1)
    plan.add_argument("--strategy", default="ddp", help="ddp, zero2 or zero3 (FSDP2 that reshards counts as zero3)")
    plan.add_argument("--prompt_length", type=int, default=256, metavar="TOKENS")
    plan.add_argument("--tflops", type=float, default=100.0, help="what a device achieves; an assumption")
    plan.set_defaults(call=run_plan)

    add_compress(commands)

    table = commands.add_parser("table", help="several runs in one table, from their adherence.json")
    table.add_argument("runs", type=Path, nargs="+", help="output folders")
    table.set_defaults(call=run_table)

    report = commands.add_parser("report", help="one self-contained HTML page of one run or many")
    report.add_argument("runs", type=Path, nargs="+", help="output folders")
    report.add_argument("--output", type=Path, help="folder of the page (default: the first run's, made anew)")
    report.set_defaults(call=run_report)

    export = commands.add_parser("export", help="an adapter folder with its model card, ready for the Hub")
    export.add_argument("run", type=Path, help="output folder of a finished recipe")
    export.add_argument("--output", type=Path, help="folder to make (default: exports/<name of the run>)")
    export.add_argument("--base_model", help="Hub id of the base (default: the one that it was trained on)")
    export.add_argument("--merge", action="store_true", help="also save base and adapter as one model")
    export.add_argument("--push", metavar="REPO", help="upload to this Hub repository, name/of-it")
    export.add_argument("--private", action="store_true", help="make the repository private")
    export.set_defaults(call=run_export)
    return parser


def run_generate(options: argparse.Namespace) -> None:
    """Prints what the model thinks of one question at each budget, and how long."""
    if min(options.budgets) < 1:
        raise ValueError(f"--budgets must be 1 or more, got {min(options.budgets)}")
    if options.temperature < 0:
        raise ValueError(f"--temperature must be 0 or more, got {options.temperature}")
    from rlred.data.models import Loading, load_model
    from rlred.data.prompts import decode
    from rlred.evaluation.evaluate import Evaluation, subjects_of
    from rlred.evaluation.sweep import complete

    adapters, models = ([name] if name else [] for name in (options.adapter, options.model))
    told = {name: getattr(options, name) for name in ("wording", *PROMPT_FLAGS)}
    subject = subjects_of(Evaluation(options.budgets, model=models, adapter=adapters, **told))[-1]
    budgets = [None] if options.mode == "none" else options.budgets
    model, tokenizer = load_model(subject.model, subject.adapter, Loading.of(options))
    prompts, row = subject.prompts.fitted(tokenizer), {"question": options.question}
    completions = complete(
        model,
        tokenizer,
        [prompts.asked(prompts.turns(row, budget, options.mode)) for budget in budgets],
        max_completion_length=options.max_completion_length or 2 * max(options.budgets),
        temperature=options.temperature,
        seed=options.seed,
    )
    texts = decode(tokenizer, completions, prompts.end)
    for budget, ids, text in zip(budgets, completions, texts, strict=True):
        asked = "free" if budget is None else f"{options.mode} {budget}"
        print(f"\n[{asked}: {len(ids)} tokens]\n{text}")


def run_plan(options: argparse.Namespace) -> None:
    """Prints what a recipe's run will take."""
    from rlred.checks.plan import Plan, read_recipe, report, shape_of

    if not options.config.is_file():
        raise ValueError(f"--config: no such file: {options.config}")
    arguments, training, model_config = read_recipe(options.config)
    shape = shape_of(options.model or model_config.model_name_or_path)
    plan = Plan(shape, arguments, training, model_config, options.devices, options.strategy, options.prompt_length)
    print(report(plan, options.config, options.tflops))


def run_evaluate(options: argparse.Namespace) -> None:
    """Measures models, or files of predictions: adherence.{json,md,png}, and ratios.{json,md,png} where ratios are."""
    output = options.output or (Path(options.adapter[0]) if options.adapter else Path("outputs") / "evaluation")
    for name in ("adherence.json", *(["ratios.json"] if options.ratios else [])):
        if (output / name).exists():
            raise ValueError(f"{output}/{name} exists and is not written over; name another folder with --output")
    if options.predictions:
        evaluate_predictions(options, output)
    elif options.ratios:
        evaluate_by_ratio(options, output)
    else:
        # Imported here: --help and wrong flags should not wait for torch.
        from rlred.evaluation.evaluate import Evaluation, evaluate

        names = [item.name for item in dataclasses.fields(Evaluation)]
        evaluate(Evaluation(**{name: getattr(options, name) for name in names}), output)
    for name in ("ratios.md", "adherence.md"):
        if (output / name).exists():
            print((output / name).read_text())


def evaluate_by_ratio(options: argparse.Namespace, output: Path) -> None:
    """Measures an adapter of recipes/tokenskip.py at every ratio."""
    if not options.adapter:
        raise ValueError(
            "--ratios: name an adapter of recipes/tokenskip.py with --adapter, or files with --predictions"
        )
    for name in ("num_questions", "batch_size"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be 1 or more, got {getattr(options, name)}")
    for name in PROMPT_FLAGS:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name}: with --ratios an adapter is asked as its run.json says; leave it out")
    from rlred.compression.evaluate import evaluate_ratios
    from rlred.data.questions import load_questions
    from rlred.evaluation.sweep import sample_of

    questions = load_questions(
        options.questions,
        split=options.split,
        config=options.questions_config,
        question_column=options.question_column,
        solution_column=options.solution_column,
    )
    evaluate_ratios(
        options.adapter[0],
        options.model,
        sample_of(questions, options.num_questions),
        options.ratios,
        output,
        max_completion_length=options.max_completion_length,
        temperature=options.temperature,
        batch_size=options.batch_size,
        dtype=options.dtype,
        seed=options.seed,
    )


def evaluate_predictions(options: argparse.Namespace, output: Path) -> None:
    """Measures files that another program has written."""
    from rlred.data.prompts import tell_end
    from rlred.evaluation.predictions import measure_predictions
    from rlred.evaluation.report import write_report
    from rlred.rewards import Correctness

    end = options.end_of_thinking
    pairs = [column.partition("=") for column in options.columns]
    for name, equals, column in pairs:
        if not (name and equals and column):
            raise ValueError(f"--columns: {name + equals + column!r} is not of the form NAME=COLUMN")
    report, outcomes = measure_predictions(
        options.predictions,
        ratios=options.ratios,
        budgets=options.prediction_budgets,
        columns={name: column for name, _, column in pairs},
        mode=options.modes[0],
        count=counter(options.tokenizer, options.trust_remote_code),
        correctness=tell_end(Correctness(require_end_of_thinking=options.require_end_of_thinking), end, tokenizer=None),
    )
    if any(outcome["ratio"] is not None for outcome in outcomes):
        from rlred.compression.evaluate import report_predictions

        report_predictions(report, outcomes, output)
    write_report(report, output)


def counter(name: str | None, trust_remote_code: bool):
    """A function that counts the tokens of a text; None without a tokenizer."""
    if name is None:
        return None
    from transformers import AutoTokenizer

    from rlred.tiny import resolve_model

    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve_model(name), trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ValueError(f"tokenizer {name!r} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def run_reference(options: argparse.Namespace) -> None:
    """Writes question rows with `reference_length` and `reference_accuracy`; goes on after an interruption."""
    if options.output.exists():
        raise ValueError(f"--output {options.output} exists and is not written over; name another file")
    for name in ("num_samples", "max_completion_length", "batch_size"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be 1 or more, got {getattr(options, name)}")
    from rlred.data.budgets import make_wording, wording_flag
    from rlred.data.models import Loading, load_model
    from rlred.data.prompts import Prompts, template_settings
    from rlred.data.questions import load_questions
    from rlred.data.references import sample_references, write_references

    wording = make_wording(wording_flag(options.wording))
    settings = template_settings(options.chat_template_kwargs)
    prompts = Prompts(wording, options.system_prompt, settings, options.end_of_thinking)
    questions = load_questions(
        options.questions,
        split=options.split,
        config=options.questions_config,
        question_column=options.question_column,
        solution_column=options.solution_column,
        limit=options.num_questions,
        seed=options.seed,
    )
    model, tokenizer = load_model(options.model, None, Loading.of(options))
    rows = sample_references(
        model,
        tokenizer,
        questions,
        prompts=prompts.fitted(tokenizer),
        num_samples=options.num_samples,
        max_completion_length=options.max_completion_length,
        temperature=options.temperature,
        batch_size=options.batch_size,
        seed=options.seed,
        path=options.output.with_suffix(".completions.jsonl"),
    )
    write_references(rows, options.output)
    lengths, accuracies = rows["reference_length"], rows["reference_accuracy"]
    print(
        f"{options.output}: {len(rows)} of {len(questions)} questions, {sum(lengths) / len(rows):.1f} tokens and "
        f"{100 * sum(accuracies) / len(rows):.1f} % right on average"
    )


def run_table(options: argparse.Namespace) -> None:
    """Prints one table of the runs' stages."""
    from rlred.evaluation.report import compare, read_report

    print(compare([(str(run), read_report(run)) for run in options.runs]))


def run_report(options: argparse.Namespace) -> None:
    """Writes one HTML page of the runs, and its pictures."""
    from rlred.evaluation.page import write_page

    output = options.output or options.runs[0]
    if options.output and (output / "report.html").exists():
        raise ValueError(f"{output}/report.html exists and is not written over; name another folder with --output")
    print(write_page(options.runs, output))


def run_export(options: argparse.Namespace) -> None:
    """Makes a folder for the Hub, and uploads it if asked to."""
    from rlred.publish.export import base_is_local, export, push

    output = options.output or Path("exports") / options.run.name
    if options.push and not options.base_model and base_is_local(options.run):
        raise ValueError(
            "--push: the adapter was trained on a local folder; name its base on the Hub with --base_model"
        )
    folder = export(options.run, output, base_model=options.base_model, merge=options.merge)
    print(folder)
    if options.push:
        print(push(folder, options.push, private=options.private))


def main(argv: list[str] | None = None) -> int:
    """Runs a command; a wrong value is one clear line and exit status 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    # PEFT and transformers tell each other of renamed options; nothing that a user could act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv[:1] == ["train"]:  # its flags are accelerate's and the recipe's
            from rlred.train import train

            return train(argv[1:])
        options = build_parser().parse_args(argv)
        options.call(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
