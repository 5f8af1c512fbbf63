"""What batching by length saves in a sweep: rows in the order of their budgets against rows in the order of questions.

    python tests/benchmark_batching.py --adapter data/l1_maxlen

Both loops call the same `model.generate` with the same batch size, greedily, turn about in one run. A batch runs until
its longest completion ends, so one that mixes budgets runs as long as its largest asks for, every time.
"""

import argparse
import statistics
import time

import torch

from rlred.data.budgets import Wording, ask
from rlred.data.models import load_model
from rlred.data.prompts import prompt_ids
from rlred.data.questions import load_questions
from rlred.evaluation.evaluate import base_of
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.sweep import complete, merged_adapter, stop_ids


@torch.no_grad()
def plain_loop(model, tokenizer, prompts, cap, batch_size) -> list[list[int]]:
    """What one writes first: pad, generate, cut at the end of each."""
    stops, found = stop_ids(model, tokenizer), []
    with merged_adapter(model):
        for start in range(0, len(prompts), batch_size):
            ids = [prompt_ids(tokenizer, prompt) for prompt in prompts[start : start + batch_size]]
            inputs = tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt").to(model.device)
            output = model.generate(
                **inputs, max_new_tokens=cap, do_sample=False, pad_token_id=tokenizer.pad_token_id, top_p=None
            )
            for row in output[:, inputs["input_ids"].shape[1] :].tolist():
                end = next((i + 1 for i, token in enumerate(row) if token in stops), len(row))
                found.append(row[:end])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", help="a length-controlled adapter; without one the base is deaf, nothing is saved")
    parser.add_argument("--mode", default="max")
    parser.add_argument("--budgets", type=int, nargs="+", default=[16, 24, 32, 40, 48, 56, 64, 72])
    parser.add_argument("--num_questions", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    model, tokenizer = load_model(base_of(args.adapter, []), args.adapter)
    model.eval()
    questions = list(load_questions("sums", split="test", limit=args.num_questions))
    cap = 2 * max(args.budgets)
    by_question = [
        next(ask([question], Wording(), [(args.mode, budget)]))["prompt"]
        for question in questions
        for budget in args.budgets
    ]
    order = sorted(range(len(by_question)), key=lambda row: row % len(args.budgets))
    by_length = [by_question[row] for row in order]
    loops = {
        "plain loop, rows as the questions come": lambda: plain_loop(
            model, tokenizer, by_question, cap, args.batch_size
        ),
        "plain loop, rows by budget": lambda: plain_loop(model, tokenizer, by_length, cap, args.batch_size),
        "rlred's sweep (rows by budget)": lambda: complete(
            model,
            tokenizer,
            by_length,
            Sampling(cap, temperature=0, batch_size=args.batch_size),
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    tokens, steps = {}, {}
    for _ in range(args.repeats):
        for name, loop in loops.items():
            start = time.perf_counter()
            found = loop()
            seconds[name].append(time.perf_counter() - start)
            tokens[name] = sum(map(len, found))
            batches = [found[i : i + args.batch_size] for i in range(0, len(found), args.batch_size)]
            steps[name] = sum(max(map(len, batch)) for batch in batches)
    print(f"{len(by_length)} completions, batches of {args.batch_size}, {args.repeats} repeats turn about, medians\n")
    print("| loop | seconds | generate steps | tokens | ms per token | time, first loop = 1 |")
    print("|---|---|---|---|---|---|")
    first = statistics.median(next(iter(seconds.values())))
    for name, values in seconds.items():
        middle = statistics.median(values)
        per_token = 1000 * middle / tokens[name]
        print(f"| {name} | {middle:.2f} | {steps[name]} | {tokens[name]} | {per_token:.3f} | {middle / first:.2f} |")


if __name__ == "__main__":
    main()
