"""The `rlred` command.

rlred evaluate --model tiny_reasoner --adapter outputs/l1_exact --budgets 16 32 64
rlred table outputs/l1_exact outputs/l1_exact-cold-0
"""

import argparse
import contextlib
import json
import logging
import sys
from pathlib import Path

from rlred.budgets import MODES, make_wording
from rlred.evaluation.measures import measure
from rlred.evaluation.report import STAGES, compare, write_report
from rlred.files import write_json


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="rlred", description="Reasoning length under control.")
    commands = parser.add_subparsers(dest="command", required=True)

    evaluate = commands.add_parser("evaluate", help="sweep budgets with a model and, if given, its adapter")
    evaluate.add_argument("--model", default="tiny_reasoner", help="base model: a folder, a Hub id, or tiny_reasoner")
    evaluate.add_argument("--adapter", help="folder or Hub id of a PEFT adapter; measured beside the base")
    evaluate.add_argument("--questions", default="sums", help="sums, a local JSON/JSONL/Parquet/CSV file, or a Hub id")
    evaluate.add_argument("--questions_config", help="configuration name of a Hub dataset")
    evaluate.add_argument("--split", default="test")
    evaluate.add_argument("--question_column")
    evaluate.add_argument("--solution_column")
    evaluate.add_argument("--num_questions", type=int, default=64)
    evaluate.add_argument("--num_samples", type=int, default=1, help="completions of each question at each budget")
    evaluate.add_argument("--budgets", type=int, nargs="+", required=True, metavar="TOKENS")
    evaluate.add_argument("--modes", nargs="+", default=["exact"], choices=MODES)
    evaluate.add_argument("--wording", default="l1", help="preset name, or templates as JSON")
    evaluate.add_argument("--max_completion_length", type=int, help="default: twice the largest budget")
    evaluate.add_argument("--require_end_of_thinking", action="store_true", help="an answer without </think> is wrong")
    evaluate.add_argument("--temperature", type=float, default=1.0)
    evaluate.add_argument("--batch_size", type=int, default=128)
    evaluate.add_argument("--dtype", default="float32")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument("--output", type=Path, help="folder for the report (default: the adapter's, if it has none)")
    evaluate.add_argument("--trust_remote_code", action="store_true")
    evaluate.set_defaults(call=run_evaluate)

    table = commands.add_parser("table", help="several runs in one table, from their adherence.json")
    table.add_argument("runs", type=Path, nargs="+", help="output folders")
    table.set_defaults(call=run_table)
    return parser


def check(options: argparse.Namespace) -> Path:
    """The folder for the report. Raises `ValueError` for an option out of range and where a report would be lost."""
    for name, smallest in (("num_questions", 1), ("num_samples", 1), ("batch_size", 1), ("temperature", 0)):
        if getattr(options, name) < smallest:
            raise ValueError(f"--{name} must be {smallest} or more, got {getattr(options, name)}")
    if min(options.budgets) < 1:
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
    wording = make_wording(json.loads(options.wording) if options.wording.startswith("{") else options.wording)
    output = check(options)
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
    with model.disable_adapter() if options.adapter else contextlib.nullcontext():
        report["baseline"] = measured("baseline")
    if options.adapter:
        report["trained"] = measured("trained")
        report["control_constant_length"] = measured(
            "control_constant_length", constant_budget=budgets[len(budgets) // 2]
        )
    write_report(report, output)
    print((output / "adherence.md").read_text())


def run_table(options: argparse.Namespace) -> None:
    """Prints one table of the runs' stages."""
    reports = []
    for run in options.runs:
        path = run / "adherence.json" if run.is_dir() else run
        if not path.is_file():
            raise ValueError(f"{run}: there is no adherence.json")
        try:
            reports.append((str(run), json.loads(path.read_text())))
        except json.JSONDecodeError as problem:
            raise ValueError(f"{path}: cannot be read as JSON: {problem}") from None
    print(compare(reports))


def main(argv: list[str] | None = None) -> int:
    """Runs a command; a wrong value is one clear line and exit status 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    options = build_parser().parse_args(argv)
    try:
        options.call(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
