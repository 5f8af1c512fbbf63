"""The `rlred` command.

rlred evaluate --model tiny_reasoner --adapter outputs/l1_exact --budgets 16 32 64
rlred generate "3+7+2+9=?" --adapter outputs/l1_maxlen --budgets 16 32 64
rlred table outputs/l1_exact outputs/l1_exact-cold-0
rlred report outputs/l1_exact outputs/l1_maxlen --output outputs/page
rlred export outputs/l1_maxlen --base_model me/base --push me/my-adapter
"""

import argparse
import contextlib
import itertools
import json
import logging
import sys
import warnings
from pathlib import Path

from rlred.budgets import MODES, make_wording
from rlred.evaluation.measures import measure
from rlred.evaluation.report import STAGES, compare, read_report, write_report
from rlred.files import write_json

BASELINES = ("brevity", "truncation", "s1_forcing")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="rlred", description="Reasoning length under control.")
    commands = parser.add_subparsers(dest="command", required=True)

    evaluate = commands.add_parser("evaluate", help="sweep budgets with a model and, if given, its adapter")
    evaluate.add_argument("--model", help="a folder, a Hub id, or tiny_reasoner (default: the adapter's base, or that)")
    evaluate.add_argument("--adapter", help="folder or Hub id of a PEFT adapter; measured beside the base")
    evaluate.add_argument("--questions", default="sums", help="sums, a local JSON/JSONL/Parquet/CSV file, or a Hub id")
    evaluate.add_argument("--questions_config", help="configuration name of a Hub dataset")
    evaluate.add_argument("--split", default="test")
    evaluate.add_argument("--question_column")
    evaluate.add_argument("--solution_column")
    evaluate.add_argument("--num_questions", type=int, default=64)
    evaluate.add_argument("--num_samples", type=int, default=1, help="completions of each question at each budget")
    evaluate.add_argument("--budgets", type=int, nargs="+", default=[], metavar="TOKENS")
    evaluate.add_argument("--modes", nargs="+", default=["exact"], choices=MODES)
    evaluate.add_argument("--baselines", nargs="+", default=[], choices=BASELINES, help="measured on the base as well")
    evaluate.add_argument("--wording", help="preset name, or templates as JSON (default: the adapter's, or l1)")
    evaluate.add_argument("--max_completion_length", type=int, help="default: twice the largest budget")
    evaluate.add_argument("--require_end_of_thinking", action="store_true", help="an answer without </think> is wrong")
    evaluate.add_argument("--temperature", type=float, default=1.0)
    evaluate.add_argument("--batch_size", type=int, default=128)
    evaluate.add_argument("--dtype", default="float32")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument("--output", type=Path, help="folder for the report (default: the adapter's, if it has none)")
    evaluate.add_argument("--trust_remote_code", action="store_true")
    saved = evaluate.add_argument_group("saved predictions", "measure files of completions instead of a model")
    saved.add_argument("--predictions", type=Path, nargs="+", metavar="FILE", help="JSONL, or a JSON array")
    saved.add_argument("--columns", nargs="+", default=[], metavar="NAME=COLUMN", help="length=cot_length ...")
    saved.add_argument("--ratios", type=float, nargs="+", metavar="RATIO", help="one per file, 1.0 among them")
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
    generate.add_argument("--max_completion_length", type=int, help="default: twice the largest budget")
    generate.add_argument("--temperature", type=float, default=1.0)
    generate.add_argument("--dtype", default="float32")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--trust_remote_code", action="store_true")
    generate.set_defaults(call=run_generate)

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


def fill_in(options: argparse.Namespace) -> None:
    """Sets `model` and `wording`, where they were not given, to those that the adapter was trained with."""
    folder = Path(options.adapter or "")
    if options.model is None:
        config = folder / "adapter_config.json"
        named = json.loads(config.read_text()).get("base_model_name_or_path") if config.is_file() else None
        options.model = named or "tiny_reasoner"
    if options.wording is None:
        run = folder / "run.json"
        options.wording = json.loads(run.read_text())["arguments"]["wording"] if run.is_file() else "l1"
    elif options.wording.startswith("{"):
        options.wording = json.loads(options.wording)


def run_generate(options: argparse.Namespace) -> None:
    """Prints what the model thinks of one question at each budget, and how long."""
    if min(options.budgets) < 1:
        raise ValueError(f"--budgets must be 1 or more, got {min(options.budgets)}")
    if options.temperature < 0:
        raise ValueError(f"--temperature must be 0 or more, got {options.temperature}")
    fill_in(options)
    wording = make_wording(options.wording)
    from rlred.evaluation.sweep import complete, load_for_evaluation

    budgets = [None] if options.mode == "none" else options.budgets
    model, tokenizer = load_for_evaluation(options.model, options.adapter, options.dtype, options.trust_remote_code)
    prompts = [[{"role": "user", "content": wording.ask(options.question, b, options.mode)}] for b in budgets]
    completions = complete(
        model,
        tokenizer,
        prompts,
        max_completion_length=options.max_completion_length or 2 * max(options.budgets),
        temperature=options.temperature,
        seed=options.seed,
    )
    for budget, ids in zip(budgets, completions, strict=True):
        asked = "free" if budget is None else f"{options.mode} {budget}"
        print(f"\n[{asked}: {len(ids)} tokens]\n{tokenizer.decode(ids, skip_special_tokens=True)}")


def check(options: argparse.Namespace) -> Path:
    """The folder for the report. Raises `ValueError` for an option out of range and where a report would be lost."""
    for name, smallest in (("num_questions", 1), ("num_samples", 1), ("batch_size", 1), ("temperature", 0)):
        if getattr(options, name) < smallest:
            raise ValueError(f"--{name} must be {smallest} or more, got {getattr(options, name)}")
    if not options.budgets and not options.predictions and options.modes != ["none"]:
        raise ValueError("--budgets: name the token budgets to ask for, or files with --predictions")
    if options.budgets and min(options.budgets) < 1:
        raise ValueError(f"--budgets must be 1 or more, got {min(options.budgets)}")
    output = options.output or (Path(options.adapter) if options.adapter else Path("outputs") / "evaluation")
    if (output / "adherence.json").exists():
        raise ValueError(f"{output}/adherence.json exists and is not written over; name another folder with --output")
    return output


def claim(options: argparse.Namespace, output: Path) -> None:
    """Notes in the folder what is measured there. Raises `ValueError` where that is something else already."""
    settings = {name: value for name, value in vars(options).items() if name not in ("call", "command", "output")}
    path = output / "evaluation.json"
    if path.exists() and (before := json.loads(path.read_text())) != settings:
        name = next(name for name in {**before, **settings} if before.get(name) != settings.get(name))
        raise ValueError(
            f"{output} holds an unfinished evaluation with --{name} {before.get(name)}, now {settings.get(name)}; "
            "name another folder with --output, or move it away"
        )
    write_json(path, settings)


def run_evaluate(options: argparse.Namespace) -> None:
    """Measures the base and the adapter on the same questions and writes adherence.{json,md,png}."""
    output = check(options)
    if options.predictions:
        return measure_predictions(options, output)
    fill_in(options)
    wording = make_wording(options.wording)
    # Imported here: --help and wrong flags should not wait for torch.
    from rewards import Correctness
    from rlred.evaluation.sweep import load_for_evaluation, sample_of, sweep
    from rlred.questions import load_questions

    questions = load_questions(
        options.questions,
        split=options.split,
        config=options.questions_config,
        question_column=options.question_column,
        solution_column=options.solution_column,
        limit=options.num_questions if options.questions == "sums" else None,
    )
    questions = sample_of(questions, options.num_questions)
    model, tokenizer = load_for_evaluation(options.model, options.adapter, options.dtype, options.trust_remote_code)
    budgets = sorted(set(options.budgets))
    claim(options, output)

    def measured(stage: str, constant_budget: int | None = None) -> dict:
        outcomes = sweep(
            model,
            tokenizer,
            questions,
            budgets,
            modes=options.modes,
            wording=wording,
            max_completion_length=options.max_completion_length or 2 * max(budgets),
            correctness=Correctness(require_end_of_thinking=options.require_end_of_thinking),
            temperature=options.temperature,
            batch_size=options.batch_size,
            seed=options.seed,
            num_samples=options.num_samples,
            constant_budget=constant_budget,
            path=output / "measures" / f"{stage}.completions.jsonl",
            description=f"measuring: {stage}",
        )
        return measure(outcomes)

    report = {
        "model": options.model,
        "adapter": options.adapter,
        "seed": options.seed,
        "n_questions": len(questions),
        "temperature": options.temperature,
        **dict.fromkeys(STAGES),
    }
    base = model.disable_adapter if options.adapter else contextlib.nullcontext
    with base():
        report["baseline"] = measured("baseline")
    if options.adapter:
        report["trained"] = measured("trained")
        report["control_constant_length"] = measured(
            "control_constant_length", constant_budget=budgets[len(budgets) // 2]
        )
    if options.baselines:
        with base():
            report |= measure_baselines(options, output, model, tokenizer, questions, wording)
    write_report(report, output)
    print((output / "adherence.md").read_text())


def measure_baselines(options, output: Path, model, tokenizer, questions, wording) -> dict:
    """The measures of each baseline that was asked for, by name."""
    from rewards import Correctness, Length
    from rlred.evaluation.baselines import Baselines
    from rlred.evaluation.sweep import complete

    numbers = itertools.count()

    def complete_saved(prompts, max_completion_length: int, seed: int) -> list[list[int]]:
        return complete(
            model,
            tokenizer,
            prompts,
            max_completion_length=max_completion_length,
            batch_size=options.batch_size,
            temperature=options.temperature,
            seed=seed,
            path=output / "measures" / f"baselines.{next(numbers)}.completions.jsonl",
            description="measuring: baselines",
        )

    baselines = Baselines(
        complete_saved,
        model,
        tokenizer,
        questions,
        options.budgets,
        wording=wording,
        correctness=Correctness(require_end_of_thinking=options.require_end_of_thinking),
        length=Length(),
        max_completion_length=options.max_completion_length or 2 * max(options.budgets),
        seed=options.seed,
    )
    return {name: measure(getattr(baselines, name)()) for name in options.baselines}


def measure_predictions(options: argparse.Namespace, output: Path) -> None:
    """Measures files that another program has written."""
    from rewards import Correctness
    from rlred.evaluation.predictions import budgets_of_ratios, load_predictions

    files = options.predictions
    for name in ("ratios", "prediction_budgets"):
        values = getattr(options, name)
        if values is not None and len(values) != len(files):
            raise ValueError(f"--{name}: {len(values)} values for {len(files)} files; give one per file")
    pairs = [column.partition("=") for column in options.columns]
    for name, equals, column in pairs:
        if not (name and equals and column):
            raise ValueError(f"--columns: {name + equals + column!r} is not of the form NAME=COLUMN")
    outcomes, notes = [], []
    for i, file in enumerate(files):
        found, note = load_predictions(
            file,
            columns={name: column for name, _, column in pairs},
            budget=options.prediction_budgets[i] if options.prediction_budgets else None,
            ratio=options.ratios[i] if options.ratios else None,
            mode=options.modes[0],
            count=counter(options.tokenizer, options.trust_remote_code),
            correctness=Correctness(require_end_of_thinking=options.require_end_of_thinking),
        )
        outcomes += found
        notes.append(note)
    ids: dict[str, int] = {}
    outcomes = [{**o, "question_id": ids.setdefault(o["question"], len(ids))} for o in budgets_of_ratios(outcomes)]
    report = {
        "model": ", ".join(map(str, files)),
        "adapter": None,
        "seed": None,
        "n_questions": len(ids),
        "temperature": None,
        **dict.fromkeys(STAGES),
        "predictions": measure(outcomes),
        "files": notes,
    }
    write_report(report, output)
    print((output / "adherence.md").read_text())


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


def run_table(options: argparse.Namespace) -> None:
    """Prints one table of the runs' stages."""
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
    from rlred.export import base_is_local, export, push

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
    options = build_parser().parse_args(argv)
    try:
        options.call(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
