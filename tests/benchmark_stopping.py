"""What stopping rollouts where their reward is decided saves: tokens and seconds, a step with beside a step without.

    python -m tests.benchmark_stopping --budget_low 4 --budget_high 12
    python -m tests.benchmark_stopping --overthinking outputs/tiny_overthinking   from the board's base, made there once

Two runs of `recipes/l1_maxlen.yaml` on maximum budgets far below the base's length, without the hindsight start, with
the same random numbers at the start of each step, a step of the one after a step of the other.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from trl import GRPOTrainer

from rlred.tiny.makers.tiny_overthinking import make_overthinking
from tests.pairwise import train_in_turns, trainer_of_job


def make_trainer(args, early_stop_rollouts: bool, folder: str) -> GRPOTrainer:
    """A run of the recipe, with or without."""
    words = ["--budget_low", str(args.budget_low), "--budget_high", str(args.budget_high), "--modes", '{"max":1}']
    words += ["--max_steps", str(args.steps), "--per_device_train_batch_size", str(args.batch_size)]
    words += ["--output_dir", folder]
    if args.overthinking:
        words += ["--model_name_or_path", str(make_overthinking(args.overthinking))]
    return trainer_of_job([*words, "--early_stop_rollouts", str(early_stop_rollouts)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget_low", type=int, default=4)
    parser.add_argument("--budget_high", type=int, default=12)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch_size", type=int, default=48)
    parser.add_argument("--overthinking", type=Path, help="start from an overthinking base, kept in this folder")
    parser.add_argument("--every", type=int, default=5, help="steps per line of the table")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        trainers = [make_trainer(args, stop, str(Path(folder) / str(stop))) for stop in (False, True)]
        clock, seconds = train_in_turns(trainers)
    logs = [[entry for entry in trainer.state.log_history if "reward" in entry] for trainer in trainers]
    tokens = [[entry["completions/mean_length"] * args.batch_size for entry in log] for log in logs]
    print("| steps | tokens | tokens, stopped | ratio | seconds | seconds, stopped | cut | reward | reward, stopped |")
    print("|---|---|---|---|---|---|---|---|---|")
    for start in [*range(0, args.steps, args.every), None]:
        part = slice(None) if start is None else slice(start, start + args.every)
        name = "all" if start is None else f"{start + 1}-{start + args.every}"
        whole, cut = (sum(values[part]) for values in tokens)
        slow, fast = (sum(values[part]) for values in seconds)
        stopped = statistics.fmean(entry["adherence/stopped"] for entry in logs[1][part])
        rewards = [statistics.fmean(entry["reward"] for entry in log[part]) for log in logs]
        print(
            f"| {name} | {whole:.0f} | {cut:.0f} | {whole / cut:.2f} | {slow:.1f} | {fast:.1f} | {100 * stopped:.0f} % "
            f"| {rewards[0]:.3f} | {rewards[1]:.3f} |"
        )
    ratios = [a / b for a, b in zip(*seconds, strict=True)]
    by_clock = [a / b for a, b in zip(*clock, strict=True)]
    print(f"\nseconds are the processor's; a step without / with, median of {len(ratios)} pairs: ", end="")
    print(f"{statistics.median(ratios):.2f} by the processor, {statistics.median(by_clock):.2f} by the clock")


if __name__ == "__main__":
    main()
