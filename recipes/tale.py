r"""Self-estimated budgets: from a model that keeps a budget to one that chooses it (TALE, 2412.18547).

The adapter of recipes/l1_maxlen.py is asked every question at every budget, down to where it is right no more; its last
right completion becomes the target of the same question asked without a budget. Differs from the paper: the searching
model keeps budgets, which a prompt alone does not make it do; SFT only, no DPO.

CPU, minutes    python recipes/tale.py
a real model    python recipes/tale.py --model MODEL --adapter ADAPTER --questions QUESTIONS --budgets 256 512 1024 2048
"""

import argparse
import json
import logging
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from trl import SFTConfig

from rlred.dial import use_all_cores
from rlred.evaluation.evaluate import base_of, wording_of
from rlred.evaluation.measures import measure
from rlred.evaluation.report import STAGES, write_report
from rlred.evaluation.sweep import load_for_evaluation, sample_of, sweep
from rlred.files import write_json
from rlred.output import holds_run
from rlred.questions import load_questions
from rlred.tale import search_budgets, sft_rows, train
from rlred.tiny import sums

ROOT = Path(__file__).resolve().parents[1]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", default=str(ROOT / "data" / "l1_maxlen"), help="an adapter that keeps budgets")
    parser.add_argument("--model", help="its base (default: what the adapter says)")
    parser.add_argument("--questions", default="sums")
    parser.add_argument("--num_questions", type=int, default=1024)
    parser.add_argument("--eval_split", default="test")
    parser.add_argument("--num_eval_questions", type=int, default=256)
    parser.add_argument("--budgets", type=int, nargs="+", default=[16, 24, 32, 40, 48, 56, 64, 72])
    parser.add_argument("--max_steps", type=int, default=120)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--lora_r", type=int, default=32)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs") / "tale")
    return parser.parse_args()


def run(args: argparse.Namespace) -> dict:
    """Searches, trains, measures; returns the report."""
    output = args.output_dir
    if holds_run(output):
        raise ValueError(f"output_dir={str(output)!r} already holds a run; name another folder")
    base, wording = base_of(args.adapter, [args.model] if args.model else []), wording_of(args.adapter)
    cap = 2 * max(args.budgets)
    embedded = args.questions in sums.FAMILIES
    limits = [n if embedded else None for n in (args.num_questions, args.num_eval_questions)]
    questions = sample_of(load_questions(args.questions, limit=limits[0], seed=args.seed), args.num_questions)
    held_out = sample_of(
        load_questions(args.questions, split=args.eval_split, limit=limits[1]), args.num_eval_questions
    )

    model, tokenizer = load_for_evaluation(base, args.adapter, args.dtype)
    path = output / "search.completions.jsonl"
    settings = {"wording": wording, "max_completion_length": cap, "seed": args.seed, "batch_size": 128}
    found = search_budgets(model, tokenizer, questions, args.budgets, path=path, **settings)
    write_json(output / "found.json", found)

    def measured(model) -> dict:
        return measure(sweep(model, tokenizer, held_out, [], modes=["none"], **settings))

    model, tokenizer = load_for_evaluation(base, None, args.dtype)
    before = measured(model)
    torch.manual_seed(args.seed)
    lora = LoraConfig(r=args.lora_r, lora_alpha=2 * args.lora_r, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    config = SFTConfig(
        output_dir=str(output),
        max_steps=args.max_steps,
        per_device_train_batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=10,
        max_length=None,
        completion_only_loss=True,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        activation_checkpointing=False,
        dataloader_pin_memory=False,
        report_to="none",
        logging_steps=20,
        save_strategy="no",
        seed=args.seed,
    )
    train(model, tokenizer, sft_rows(found, tokenizer, wording), config)
    report = {
        "model": base,
        "adapter": str(output),
        "seed": args.seed,
        "n_questions": len(held_out),
        "temperature": 1.0,
        **dict.fromkeys(STAGES),
        "baseline": before,
        "trained": measured(model),
        "search": {"questions": len(questions), "found": len(found)},
    }
    write_json(output / "run.json", {"arguments": json.loads(json.dumps(vars(args), default=str))})
    write_report(report, output)
    return report


def main() -> int:
    """A wrong value is one clear line and exit status 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    use_all_cores()
    args = parse()
    try:
        run(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print((args.output_dir / "adherence.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
