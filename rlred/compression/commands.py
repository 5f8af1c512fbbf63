"""`rlred compress`: the stages of compression as commands, each of which goes on where it was interrupted.

rlred compress traces --questions gsm8k.jsonl --model Qwen/Qwen2.5-7B-Instruct --ratio_format tokenskip_qwen \
    --max_completion_length 512 --output work/traces.jsonl
rlred compress scores --traces work/traces.jsonl --scorer llmlingua2 --output work/scores.jsonl
rlred compress rows --traces work/traces.jsonl --scores work/scores.jsonl --tokenizer Qwen/Qwen2.5-7B-Instruct \
    --ratio_format tokenskip_qwen --ratios 1.0 0.9 0.8 0.7 0.6 0.5 --output work/rows.jsonl --alpaca work/alpaca.json
rlred compress shots --traces work/traces.jsonl --scores work/scores.jsonl --tokenizer Qwen/Qwen2.5-7B-Instruct \
    --budget 1024 --output work/shots.json
"""

import argparse
import json
from pathlib import Path

from rlred.compression.mixing import DIFFICULTIES
from rlred.tiny import TINY_TALKER


def add_compress(commands) -> None:
    """Adds the command, its three stages, and few-shot prompts from the same scores."""
    compress = commands.add_parser("compress", help="chains of thought with fewer words: traces, scores, rows for SFT")
    stages = compress.add_subparsers(dest="stage", required=True)

    traces = stages.add_parser("traces", help="the model's own right chains of thought, thinking and answer apart")
    traces.add_argument("--output", type=Path, required=True, help="JSONL file to make; must not exist")
    traces.add_argument("--from_file", type=Path, help="read completions from this file instead of sampling them")
    traces.add_argument("--columns", nargs="+", default=[], metavar="NAME=COLUMN", help="of that file")
    traces.add_argument("--model", default=TINY_TALKER)
    traces.add_argument("--questions", default="short_sums")
    traces.add_argument("--questions_config", help="configuration name of a Hub dataset")
    traces.add_argument("--split", default="train")
    traces.add_argument("--num_questions", type=int, help="default: all; 4,096 embedded ones")
    traces.add_argument("--ratio_format", default="words", help="preset name, or fields as JSON")
    add_prompt_flags(traces)
    traces.add_argument("--max_completion_length", type=int, default=512)
    traces.add_argument("--num_samples", type=int, default=1)
    traces.add_argument("--temperature", type=float, default=0.0)
    traces.add_argument("--batch_size", type=int, default=128)
    traces.add_argument("--dtype", default="float32")
    traces.add_argument("--seed", type=int, default=0)
    traces.set_defaults(call=run_traces)

    scores = stages.add_parser("scores", help="how much each part of a trace matters; each text is scored once")
    scores.add_argument("--traces", type=Path, required=True)
    scores.add_argument("--output", type=Path, required=True)
    scores.add_argument("--scorer", required=True, help="llmlingua2, self_information, conditional, ...")
    scores.add_argument("--scorer_model", help="folder or Hub id (default for llmlingua2: its published model)")
    scores.add_argument("--dtype", default="float32")
    scores.add_argument("--seed", type=int, default=0, help="of the scorer `random`")
    scores.set_defaults(call=run_scores)

    rows = stages.add_parser("rows", help="traces cut at every ratio, as rows for SFT")
    rows.add_argument("--traces", type=Path, required=True)
    rows.add_argument("--scores", type=Path, help="needed without --levels")
    rows.add_argument("--output", type=Path, required=True, help="JSONL file to make; must not exist")
    rows.add_argument("--tokenizer", default=TINY_TALKER, help="the target model's; ratios are shares of its tokens")
    rows.add_argument("--ratios", type=float, nargs="+", default=[1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    rows.add_argument("--ratio_format", default="words", help="preset name, or fields as JSON")
    add_prompt_flags(rows)
    rows.add_argument("--ratios_per_question", type=int, default=1, help="rows that a trace gives")
    rows.add_argument("--difficulty", choices=DIFFICULTIES, help="cut easy questions shorter than hard ones (LiteCoT)")
    rows.add_argument("--short_share", type=float, help="share of the rows that are cut, the rest whole (TL;DR)")
    rows.add_argument("--unasked", action="store_true", help="leave the ratio out of the prompt")
    rows.add_argument(
        "--levels",
        type=float,
        nargs="+",
        metavar="P",
        help="in place of ratios: drop levels 0 to 4 of a trace with these probabilities (Dualformer)",
    )
    rows.add_argument("--tolerance", type=float, default=0.05, help="leave out what misses its ratio by more")
    rows.add_argument("--unprotected", action="store_true", help="let numbers and operators go like words: a control")
    rows.add_argument("--alpaca", type=Path, help="also write LLaMA-Factory's format here")
    rows.add_argument("--seed", type=int, default=0)
    rows.set_defaults(call=run_rows)

    shots = stages.add_parser("shots", help="a few-shot prompt of pruned examples, within a budget of tokens")
    shots.add_argument("--traces", type=Path, required=True)
    shots.add_argument("--scores", type=Path, required=True)
    shots.add_argument("--output", type=Path, required=True, help="wording for `rlred evaluate`; must not exist")
    shots.add_argument("--tokenizer", default=TINY_TALKER, help="the target model's; the budget is in its tokens")
    shots.add_argument("--budget", type=int, required=True, help="tokens of all examples together")
    shots.add_argument("--keep", type=float, default=0.5, help="examples are chosen as if each were cut to this ratio")
    shots.add_argument("--num_shots", type=int, help="at most so many")
    shots.set_defaults(call=run_shots)


def add_prompt_flags(parser) -> None:
    """How a question is asked beside its wording, for every command that asks one."""
    parser.add_argument("--system_prompt", help="system prompt of the questions that bring none ('' for none)")
    parser.add_argument(
        "--chat_template_kwargs", metavar="JSON", help='settings of the chat template: {"enable_thinking": false}'
    )
    parser.add_argument("--end_of_thinking", metavar="TEXT", help="what ends the thinking ('' for a model without)")


def _ratio_format(options: argparse.Namespace):
    from dataclasses import replace

    from rlred.compression.rows import make_ratio_format
    from rlred.data.prompts import Prompts, template_settings

    text = options.ratio_format
    try:
        found = make_ratio_format(json.loads(text) if text.startswith("{") else text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--ratio_format: not JSON: {error}") from None
    prompts = Prompts(
        system_prompt=options.system_prompt,
        chat_template_kwargs=template_settings(options.chat_template_kwargs),
        end_of_thinking=options.end_of_thinking,
    )
    return replace(found, prompts=prompts)


def _must_not_exist(name: str, path: Path | None) -> None:
    if path is not None and path.exists():
        raise ValueError(f"--{name} {path} exists and is not written over; name another file")


def run_traces(options: argparse.Namespace) -> None:
    """Samples traces, or reads them from a file."""
    _must_not_exist("output", options.output)
    from rlred.compression.stages import traces_stage
    from rlred.compression.traces import load_traces, sample_traces
    from rlred.data.models import Loading, load_model
    from rlred.data.questions import load_questions

    ratio_format = _ratio_format(options)

    def sample():
        questions = load_questions(
            options.questions,
            split=options.split,
            config=options.questions_config,
            limit=options.num_questions,
            seed=options.seed,
        )
        model, tokenizer = load_model(options.model, None, Loading.of(options))
        return sample_traces(
            model,
            tokenizer,
            list(questions),
            ratio_format.fitted(tokenizer),
            max_completion_length=options.max_completion_length,
            num_samples=options.num_samples,
            temperature=options.temperature,
            batch_size=options.batch_size,
            seed=options.seed,
            path=options.output.with_suffix(".completions.jsonl"),
        )

    columns = {name: column for name, _, column in (pair.partition("=") for pair in options.columns)}
    make = (lambda: load_traces(options.from_file, columns, ratio_format.prompts.end)) if options.from_file else sample
    traces_stage(options.output, make)
    print(f"{options.output}: {options.output.with_suffix('.json').read_text().strip()}")


def run_scores(options: argparse.Namespace) -> None:
    """Scores traces; a file that is there is gone on with."""
    from rlred.compression.scores import make_scorer
    from rlred.compression.stages import read_lines, scores_stage

    traces = read_lines(options.traces, ("question", "thinking"))
    scorer = make_scorer(options.scorer, options.scorer_model, seed=options.seed, dtype=options.dtype)
    name = "/".join(str(part) for part in (options.scorer, options.scorer_model or "", options.seed))
    scores_stage(options.output, traces, scorer, name)
    print(f"{options.output}: scores of {len(traces)} texts")


def run_rows(options: argparse.Namespace) -> None:
    """Cuts traces, or drops levels of them, and writes rows."""
    for name in ("output", "alpaca"):
        _must_not_exist(name, getattr(options, name))
    if (options.scores is None) == (options.levels is None):
        raise ValueError("rows: give either --scores, to cut by them, or --levels")
    if options.levels is not None and (options.difficulty or options.short_share is not None or options.unprotected):
        raise ValueError("--levels: goes without --difficulty, --short_share and --unprotected, which are for ratios")
    from rlred.compression.levels import make_level_rows
    from rlred.compression.rows import make_rows, to_alpaca
    from rlred.compression.stages import read_scores, rows_stage
    from rlred.files import write_json

    traces, tokenizer = _traces(options.traces), _tokenizer(options.tokenizer)
    ratio_format = _ratio_format(options).fitted(tokenizer)

    def make():
        if options.levels is not None:
            settings = {"draws": options.ratios_per_question, "seed": options.seed}
            return make_level_rows(traces, options.levels, tokenizer, ratio_format, **settings)
        return make_rows(
            traces,
            read_scores(options.scores, traces),
            options.ratios,
            tokenizer,
            ratio_format,
            ratios_per_question=options.ratios_per_question,
            tolerance=options.tolerance,
            protect=not options.unprotected,
            ask_ratio=not options.unasked,
            difficulty=options.difficulty,
            short_share=options.short_share,
            seed=options.seed,
        )

    rows = rows_stage(options.output, make)
    if options.alpaca:
        write_json(options.alpaca, to_alpaca(rows, ratio_format))
    print(f"{options.output}: {options.output.with_suffix('.json').read_text().strip()}")


def run_shots(options: argparse.Namespace) -> None:
    """Chooses and prunes few-shot examples, and writes them as a wording."""
    report_path = options.output.with_suffix(".report.json")
    for path in (options.output, report_path):
        _must_not_exist("output", path)
    from rlred.compression.rows import counter_of
    from rlred.compression.shots import prune_shots
    from rlred.compression.stages import read_scores
    from rlred.data.budgets import Wording
    from rlred.files import write_json

    traces = _traces(options.traces)
    text, report = prune_shots(
        traces,
        read_scores(options.scores, traces),
        options.budget,
        counter_of(_tokenizer(options.tokenizer)),
        keep=options.keep,
        num_shots=options.num_shots,
    )
    wording = {"none": text + Wording().none}
    write_json(options.output, wording)
    write_json(report_path, report)
    print(f"{options.output}: {json.dumps(report)}")


def _traces(path: Path) -> list[dict]:
    from rlred.compression.stages import read_lines

    return read_lines(path, ("question", "opening", "thinking", "separator", "answer"))


def _tokenizer(name: str):
    from transformers import AutoTokenizer

    from rlred.tiny import resolve_model

    try:
        return AutoTokenizer.from_pretrained(resolve_model(name))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--tokenizer {name!r} cannot be loaded: {reason}") from error
