r"""All tokens, the top 20 %, the bottom 80 % or a random 20 %: reward and adherence by step, for several seeds.

Each row is recipes/l1_exact.py with another `--selection` (2506.01939's ablations under L1's reward); the rows of a
seed begin from one hindsight start. Nothing is swept: the figures are those of the steps' own rollouts. Runs lie in
outputs/forking/<row>-<seed>; what is finished is not run again.

CPU             accelerate launch tests/benchmarks/forking_table.py --seeds 0 1 2
starts at hand  add --starts outputs/l1_exact outputs/l1_exact-2 outputs/l1_exact-3        (runs, one of each seed)
other settings  flags of recipes/l1_exact.py, as --max_steps 60; they count for runs that are not there yet
"""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rlred.files import write_text
from rlred.flags import option
from rlred.output import holds_run
from rlred.runs.arguments import parse
from rlred.runs.chassis import experiment
from rlred.runs.comparison import run_variants, to_markdown
from rlred.runs.grpo import run
from rlred.train import shipped

SELECTIONS = {
    "all": {},
    "top_20": {"keep": "top", "fraction": 0.2},
    "bottom_80": {"keep": "bottom", "fraction": 0.8},
    "random_20": {"keep": "random", "fraction": 0.2},
}
CURVES = {
    "reward": "reward",
    "correct": "rewards/correctness/mean",
    "mean_abs_error": "adherence/mean_abs_error",
    "grad_norm": "grad_norm",
    "entropy": "entropy",
}
COMMON = ["--evaluate", "false", "--logging_steps", "1", "--save_strategy", "no"]


@dataclass(frozen=True)
class Forking:
    """All tokens, the top 20 %, the bottom 80 % or a random 20 %, for several seeds.

    Other flags are those of recipes/l1_exact.py.
    """

    rows: list[str] = option(list(SELECTIONS), "Rows of the table", choices=tuple(SELECTIONS), metavar="ROW")
    seeds: list[int] = option([0], "Seeds of each.")
    starts: list[Path] = option([], "Runs that have made a start, one per seed.", metavar="RUN")
    folder: Path = option(Path("outputs") / "forking", "Where the runs lie.")
    divide_by: str = option("all", "What the loss is divided by: all tokens, or the selected.")
    blocks: int = option(4, "Stretches of steps over which the table averages.", metavar="N")

    def __post_init__(self):
        if len(self.starts) not in (0, len(self.seeds)):
            raise ValueError(f"--starts: {len(self.starts)} for {len(self.seeds)} seeds; name one for each")


def make_table(known: Forking, extra: list[str]) -> str:
    """Makes the runs that are not there, and the table of all."""
    config = shipped("recipes") / "l1_exact.yaml"
    made = [known.folder / f"start-{seed}" for seed in known.seeds]
    starts = dict(zip(known.seeds, known.starts or made, strict=True))

    def run_one(name: str, seed: int, output: Path) -> dict:
        start = starts[seed]
        flags = [*COMMON, "--seed", str(seed), *extra]
        if not (start / "hindsight" / "hindsight.json").exists():
            resume = ["--resume_from_checkpoint", "true"] if holds_run(start) else []
            run(*parse(config, [*flags, "--output_dir", str(start), "--max_steps", "1", *resume]), start)
        shutil.copytree(start / "hindsight", output / "hindsight", dirs_exist_ok=True)
        chosen = SELECTIONS[name] and {**SELECTIONS[name], "divide_by": known.divide_by}
        resume = ["--resume_from_checkpoint", "true"] if holds_run(output) else []
        settings = ["--output_dir", str(output), "--selection", json.dumps(chosen), *resume]
        run(*parse(config, [*flags, *settings]), output)
        log = json.loads((output / "trainer_state.json").read_text())["log_history"]
        steps = [entry for entry in log if "reward" in entry]
        return {
            "curves": {name: [float(entry[key]) for entry in steps] for name, key in CURVES.items()},
            "selected_fraction": fmean(float(entry.get("selection/selected_fraction", 1.0)) for entry in steps),
            "seconds_per_step": fmean(float(entry["step_time"]) for entry in steps),
        }

    results = run_variants(known.folder, known.rows, known.seeds, run_one)
    table = "\n".join(block_tables(results, known.blocks))
    write_text(known.folder / "table.md", table)
    return table


def main() -> int:
    """The command line."""
    return experiment(Forking, make_table)


def block_tables(results: dict[str, list[dict]], blocks: int) -> list[str]:
    """A table per curve: its mean over each stretch of steps, for every row, with each seed's."""
    lines = []
    for name in CURVES:
        shown: dict[str, list[dict]] = {}
        for row, runs in results.items():
            for result in runs:
                curve = result["curves"][name]
                edges = [round(len(curve) * part / blocks) for part in range(blocks + 1)]
                means = {
                    f"steps {a + 1}-{b}": fmean(curve[a:b]) for a, b in zip(edges, edges[1:], strict=False) if b > a
                }
                shown.setdefault(row, []).append(means)
        lines += [f"## {name}", "", to_markdown(shown), ""]
    scalars = {
        row: [{k: v for k, v in result.items() if k != "curves"} for result in runs] for row, runs in results.items()
    }
    return [*lines, "## Cost", "", to_markdown(scalars), ""]


if __name__ == "__main__":
    sys.exit(main())
