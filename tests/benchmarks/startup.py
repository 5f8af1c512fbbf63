"""Question count against the start-up of a run: seconds and memory from the file to the first rows of a batch.

    python -m tests.benchmarks.startup                                     10, 100 and 1,000 thousand rows
    python -m tests.benchmarks.startup --trees ../before . --counts 10000  another checkout beside this one

A start-up is what a run does of its questions before its first step: it reads the Parquet file, parses and checks every
row, compares them with the held-out ones, makes the rows of one epoch at two budgets, audits them, and reads the first
64. Each is a process of its own. Memory is the peak of resident memory above what stood when the imports and the model
were there; mapped pages of files count. On a machine that other programs share, the processor's seconds say more than
those on the clock.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rlred.flags import option, parse

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("Ada", "Max", "Lin", "Omar", "Eva", "Raj", "Mia", "Tom")


@dataclass(frozen=True)
class Startup:
    """Measures start-ups side by side."""

    counts: list[int] = option([10_000, 100_000, 1_000_000], "Rows of the files.", metavar="N")
    trees: list[Path] = option([Path(".")], "Checkouts of rlred, before and after.", metavar="FOLDER")
    limit: int = option(3600, "Seconds after which a start-up is ended.", metavar="N")


def write_file(path: Path, count: int) -> None:
    """Word problems with worked solutions, all different."""
    import pyarrow
    import pyarrow.parquet

    rng = random.Random(count)
    with pyarrow.parquet.ParquetWriter(path, pyarrow.schema({"question": "string", "answer": "string"})) as writer:
        for start in range(0, count, 10_000):
            questions, answers = [], []
            for number in range(start, min(start + 10_000, count)):
                first, second, who = rng.randint(2, 99), rng.randint(2, 99), rng.choice(NAMES)
                questions.append(
                    f"In order {number}, {who} packs {first} boxes in the morning and {second} in the afternoon. Each "
                    "box holds twelve cups, and a tenth of the boxes is sent back. How many boxes were packed that day?"
                )
                answers.append(
                    f"In the morning there were {first} boxes, and {second} came after noon.\nThat makes {first} + "
                    f"{second} = <<{first}+{second}={first + second}>>{first + second} boxes.\n#### {first + second}"
                )
            writer.write_table(pyarrow.table({"question": questions, "answer": answers}))


def start_up(path: Path, folder: Path) -> dict:
    """One start-up in this process."""
    from rlred.checks.audit import audit_rows, enforce
    from rlred.runs.arguments import parse as parse_recipe
    from rlred.runs.chassis import load_both, load_model
    from rlred.runs.grpo import asked_rows, make_rewards
    from rlred.train import shipped

    flags = {
        "questions": path,
        "eval_questions": path.with_name("held-out.parquet"),
        "max_steps": -1,
        "use_cpu": "true",
    }
    flags |= {"num_train_epochs": 1, "model_name_or_path": "tiny_reasoner", "output_dir": folder / "run"}
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    arguments, training, model_config = parse_recipe(shipped("recipes") / "l1_exact.yaml", words)
    model, tokenizer = load_model(model_config, training)
    prompts = arguments.make_prompts(training.chat_template_kwargs).fitted(tokenizer)
    sampler, rewards = arguments.make_sampler(), make_rewards(arguments, training)
    import datasets.packaged_modules  # noqa: F401

    before, clock, work = memory(), time.monotonic(), time.process_time()
    questions, _ = load_both(arguments, training.seed)
    loaded = time.process_time() - work
    told = {"questions": questions, "prompts": prompts, "sampler": sampler}  # by name: another tree has another order
    rows = asked_rows(arguments=arguments, training=training, **told)
    enforce(audit_rows(rows, tokenizer, model, rewards, sampler, training, prompts))
    first = [rows[number] for number in range(64)]
    assert len(first) == 64 and len(rows) == 2 * len(questions), (len(rows), len(questions))
    told = {"seconds": time.monotonic() - clock, "cpu": time.process_time() - work, "questions_cpu": loaded}
    return told | {"mib": memory() - before, "import_mib": before}


def memory() -> float:
    """MiB of the peak of resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(tree: Path, path: Path, limit: int) -> dict | None:
    """A start-up of the code in `tree`, in a process and with a cache of its own; None where it took too long."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        environment = {**os.environ, "PYTHONPATH": str(tree.resolve()), "HF_DATASETS_CACHE": folder}
        environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).resolve()), "--one", str(path), folder]
        try:
            done = subprocess.run(
                command, cwd=tree, env=environment, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            return None
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    settings = parse(Startup, sys.argv[1:], "startup")
    print("| rows | tree | seconds | of the processor | of that, the questions | peak MiB over the import |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_file(Path(folder) / "held-out.parquet", 64)
        for count in settings.counts:
            path = Path(folder) / f"{count}.parquet"
            write_file(path, count)
            for tree in settings.trees:
                found = measured(tree, path, settings.limit)
                values = [f"{found[name]:.1f}" for name in ("seconds", "cpu", "questions_cpu")] if found else ["-"] * 3
                mib = f"{found['mib']:.0f}" if found else f"ended after {settings.limit} s"
                print(f"| {count:,} | {tree} | {' | '.join(values)} | {mib} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(start_up(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main()
