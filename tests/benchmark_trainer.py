"""What rlred's trainer adds to a step of stock TRL: the same job by both, a step of the one after a step of the other.

    python -m tests.benchmark_trainer              the ratio of the step times
    python -m tests.benchmark_trainer --profile    where the time of a step goes

Both trainers get the same model, rows, rewards and settings: those of `recipes/l1_maxlen.yaml`, without the hindsight
start, and the same random numbers, so that their rollouts are the same. The seconds of the processor are the process's
own: grading happens in another one.
"""

import argparse
import cProfile
import pstats
import statistics
import tempfile
from pathlib import Path

from trl import GRPOTrainer

from rlred.training.callbacks import CollapseAlarm, KeepBest
from tests.pairwise import train_in_turns, trainer_of_job


def make_trainer(own: bool, folder: Path, steps: int, batch_size: int) -> GRPOTrainer:
    """A trainer of the recipe's job: stock TRL's, or rlred's own with the callbacks that every run has."""
    words = ["--max_steps", str(steps), "--per_device_train_batch_size", str(batch_size), "--output_dir", str(folder)]
    callbacks = [CollapseAlarm(), KeepBest(folder / "best")] if own else []
    return trainer_of_job(words, own=own, callbacks=callbacks)


PARTS = {
    "generation": ("grpo_trainer.py", "_generate_single_turn"),
    "rewards": ("grpo_trainer.py", "_calculate_rewards"),
    "loss, forward": ("grpo_trainer.py", "compute_loss"),
    "backward": ("accelerator.py", "backward"),
    "optimiser": ("accelerate/optimizer.py", "step"),
    "rlred's metrics": ("measures.py", "step_metrics"),
    "the whole step": ("grpo_trainer.py", "training_step"),
}


def print_profile(trainer, steps: int) -> None:
    """Where the time goes, by cProfile: shares hold, seconds are inflated by the profiler."""
    profiler = cProfile.Profile()
    profiler.runcall(trainer.train)
    found = pstats.Stats(profiler).stats
    print("| part | seconds per step |\n|---|---|")
    for name, (file, function) in PARTS.items():
        total = max(
            (row[3] for (path, _, called), row in found.items() if path.endswith(file) and called == function),
            default=0.0,
        )
        print(f"| {name} | {total / steps:.3f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=96)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.profile:
            print_profile(make_trainer(True, folder, args.steps, args.batch_size), args.steps)
            return
        kinds = {"stock TRL": False, "rlred": True}
        trainers = [make_trainer(own, folder / name, args.steps, args.batch_size) for name, own in kinds.items()]
        clock, processor = train_in_turns(trainers)
    print(f"batches of {args.batch_size}, median of {args.steps} steps each, in turn\n")
    print("| trainer | seconds per step | processor seconds per step | ms per generated token |\n|---|---|---|---|")
    for kind, trainer, seconds, cpu in zip(kinds, trainers, clock, processor, strict=True):
        lengths = [log["completions/mean_length"] for log in trainer.state.log_history if "reward" in log]
        per_token = [1000 * s / (n * args.batch_size) for s, n in zip(cpu, lengths, strict=True)]
        figures = [statistics.median(values) for values in (seconds, cpu, per_token)]
        print(f"| {kind} | {figures[0]:.3f} | {figures[1]:.3f} | {figures[2]:.4f} |")
    for name, (stock, own) in (("clock", clock), ("processor", processor)):
        ratios = [b / a for a, b in zip(stock, own, strict=True)]
        print(f"\nrlred / stock by the {name}: median of the pairs {statistics.median(ratios):.3f}", end="")
    print()


if __name__ == "__main__":
    main()
