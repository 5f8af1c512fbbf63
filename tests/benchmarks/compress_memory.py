"""Traces against the seconds and the memory of `rlred compress scores`, `rows` and `shots`.

    python -m tests.benchmarks.compress_memory                                       1, 10 and 100 thousand traces
    python -m tests.benchmarks.compress_memory --trees ../before . --counts 1000     another checkout beside this one

Each command is a process of its own. The traces are made up, some 60 words each; they are scored by chance
(`--scorer random`), so that no model is part of it, and kept whole (`--ratios 1`, `--keep 1`), so that little is
searched for: what is held in memory does not depend on it. Memory is the peak of resident memory; what the imports and
the tokenizer take is about that of the smallest file. Seconds are of the processor.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rlred.flags import option, parse

ROOT = Path(__file__).resolve().parents[2]
RUN = "import json, resource, sys\nfrom rlred.cli import main\nstatus = main(sys.argv[1:])\n"
RUN += "found = resource.getrusage(resource.RUSAGE_SELF)\n"
RUN += "print(json.dumps([status, found.ru_utime + found.ru_stime, found.ru_maxrss / 1024]))"


@dataclass(frozen=True)
class Memory:
    """Measures the stages side by side."""

    counts: list[int] = option([1_000, 10_000, 100_000], "Traces of the files.", metavar="N")
    trees: list[Path] = option([Path(".")], "Checkouts of rlred, before and after.", metavar="FOLDER")
    stages: list[str] = option(["scores", "rows", "shots"], "Which commands; the first makes what the others read.")
    folder: Path | None = option(None, "Where files are made (default: a temporary folder).", metavar="FOLDER")


def write_traces(path: Path, count: int) -> None:
    """Traces of some 60 words, all different."""
    rng, words = random.Random(count), "so we then add this number and check that it is what was asked for here".split()
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            lines = [" ".join(rng.choices(words, k=12)) + f" {rng.randint(2, 99)} + {n} = {n + 7}." for n in range(4)]
            trace = {"question": f"Order {number}: how many boxes are there?", "solution": str(number)}
            trace |= {"opening": "<think>", "thinking": "\n".join(lines), "separator": "</think>"}
            file.write(json.dumps({**trace, "answer": f"\\boxed{{{number}}}", "failure_rate": 0.0}) + "\n")


def words_of(stage: str, folder: Path) -> list[str]:
    """The command of a stage."""
    told = ["compress", stage, "--traces", str(folder / "traces.jsonl")]
    if stage == "scores":
        return [*told, "--scorer", "random", "--output", str(folder / "scores.jsonl")]
    told += ["--scores", str(folder / "scores.jsonl")]
    if stage == "rows":
        return [*told, "--ratios", "1", "--output", str(folder / "rows.jsonl")]
    return [*told, "--budget", "256", "--keep", "1", "--output", str(folder / "shots.json")]


def measured(tree: Path, words: list[str]) -> tuple[float, float]:
    """Seconds of the processor and peak MiB of a command of one checkout."""
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words], cwd=tree, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode or (found := json.loads(done.stdout.splitlines()[-1]))[0]:
        raise SystemExit(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return found[1], found[2]


def main() -> None:
    """Prints a table."""
    asked = parse(Memory, sys.argv[1:], "compress_memory")
    print("| traces | | " + " | ".join(f"{stage}: s, MiB" for stage in asked.stages) + " |", flush=True)
    print("|---" * (len(asked.stages) + 2) + "|", flush=True)
    for count in asked.counts:
        for tree in asked.trees:
            with tempfile.TemporaryDirectory(dir=asked.folder) as name:
                folder = Path(name)
                write_traces(folder / "traces.jsonl", count)
                found = [measured(tree, words_of(stage, folder)) for stage in asked.stages]
            cells = [f"{seconds:.0f} s, {peak:,.0f}" for seconds, peak in found]
            print(f"| {count:,} | {tree} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
