r"""Every length reward on one board: same base, same questions, same number of rollouts, several seeds.

Each row is a run of `rlred.runs.grpo.run` with the settings of reward_board.yaml and the reward of its name below,
measured on the same held-out questions without a budget. Among them are the untrained base, correctness alone, and a
constant length. The base is a tiny reasoner that overthinks (rlred/tiny/makers/tiny_overthinking.py), made once, or
the tiny sorter, which does not (--base tiny_sorter).
Runs lie in outputs/board/<method>-<seed>; what is finished is not run again, so a board that was interrupted goes on.

All         accelerate launch tests/benchmarks/reward_board.py --seeds 0 1 2
one row     accelerate launch tests/benchmarks/reward_board.py --only group_sigmoid
other base  accelerate launch tests/benchmarks/reward_board.py --base tiny_sorter --folder outputs/board_sorter
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from statistics import fmean

from matplotlib import pyplot as plt

from rlred.evaluation.markdown import table
from rlred.evaluation.measures import wilson
from rlred.evaluation.results import Result, accuracy, read_result
from rlred.files import write_json, write_text
from rlred.flags import option
from rlred.output import holds_run
from rlred.runs.arguments import parse
from rlred.runs.chassis import experiment
from rlred.runs.grpo import run
from rlred.runs.tale import TaleArguments
from rlred.runs.tale import run as run_tale
from rlred.tiny.makers.tiny_overthinking import make_overthinking

HERE = Path(__file__).resolve()


@dataclasses.dataclass(frozen=True)
class Method:
    """One row: its reward, and what else differs from the board's settings, as flags."""

    reward: dict
    flags: dict = dataclasses.field(default_factory=dict)


DLER = {"scale_rewards": "batch", "epsilon": 0.2, "epsilon_high": 0.28}
CONSTANT = 30  # tokens of the constant-length control
# Constants are for the tiny reasoner (complete answers take 16 to 61 tokens): one choice each, shortest_correct's two.
# `_longest`: a limit above the longest need; `_probed` and `_searched`: targets that the base's own lengths give.
METHODS = {
    "correctness": Method({"name": "correctness"}),
    "constant_length": Method(
        {"name": "exact_length", "alpha": 0.02},
        {"modes": '{"exact":1}', "budget_distribution": "choices", "budget_choices": [CONSTANT]},
    ),
    "length_efficiency": Method(
        {"name": "length_efficiency", "normalise": "reference", "accuracy_weight": 1.0},
        {"num_questions": 512, "reference_samples": 4},
    ),
    "group_sigmoid": Method({"name": "group_sigmoid", "alpha": 0.4}),
    "kimi_length": Method({"name": "kimi_length", "weight": 0.4}),
    "cosine_length": Method({"name": "cosine_length", "max_length": 90, "exceed": -1.0}),
    "soft_overlong": Method({"name": "soft_overlong", "max_length": 60, "cache": 40}),
    "shortest_correct": Method({"name": "shortest_correct", "alpha": 0.03}),
    "laser": Method({"name": "length_bonus", "targets": [30]}),
    "laser_probed": Method({"name": "length_bonus", "targets": [57]}),  # the fifth percentile of the base's lengths
    "laser_d": Method({"name": "length_bonus", "targets": [25, 40, 60]}),
    "laser_d_searched": Method(
        {"name": "length_bonus", "targets": [25, 40, 60]},
        {"num_questions": 512, "target_search": '{"num_questions": 64, "every": 20, "low": 16, "step": 4}'},
    ),
    "thinkprune": Method({"name": "truncation", "stages": [[0, 60], [60, 52], [120, 46]]}),
    "thinkprune_longest": Method({"name": "truncation", "stages": [[0, 72], [60, 68], [120, 64]]}),
    "dler": Method({"name": "truncation", "limit": 46}, DLER),
    "dler_longest": Method(
        {"name": "truncation", "limit": 64}, {**DLER, "parts": '{"dynamic_sampling": {"by": "reward"}}'}
    ),
    "solve_rate_penalty": Method({"name": "solve_rate_penalty", "alpha": 0.015}),
    "slack_length": Method({"name": "slack_length", "slack": 5}),
    "format_diversity": Method({"name": "format_diversity", "markers": [" check"]}),
    "toggle": Method({"name": "toggle", "quantile": 0.25}, {"num_questions": 512, "reference_samples": 4}),
    "gr3": Method({"name": "gr3"}),
    "grpo_lead": Method({"name": "grpo_lead", "alpha": 0.2}, {"parts": '{"difficulty_weight": {}}'}),
    "lead": Method({"name": "lead", "low": 16, "high": 60}, {"logging_steps": 1}),
    "laconic": Method({"name": "laconic", "budget": 40, "rate": 0.02}, {"logging_steps": 1}),
    "length_mask": Method({"name": "length_mask", "limit": 46}),
    "ddca": Method({"name": "correctness"}, {"parts": '{"ddca": {}}'}),
    "drpo": Method({"name": "correctness"}, {"parts": '{"drpo": {}}', "loss_type": "grpo"}),
    "gdpo": Method(
        {"name": "truncation", "limit": 60},
        {"multi_objective_aggregation": "normalize_then_sum", "reward_weights": [1, 1]},
    ),
    "easy_first": Method(
        {"name": "shortest_correct", "alpha": 0.03},
        {"num_questions": 512, "reference_samples": 4, "parts": '{"easy_first": {}}'},
    ),
    "duplicated_reasoning": Method({"name": "duplicated_reasoning"}),
}
TALE = "tale"  # supervised, on what the adapter of l1_maxlen finds: no reward, and its own settings
ROWS = [*METHODS, TALE]
UNASKED = [name for name, method in METHODS.items() if "modes" not in method.flags]  # nobody asks for a length there


@dataclasses.dataclass(frozen=True)
class Base:
    """What all rows start from, the flags that it needs, and the methods whose constants are its own."""

    flags: dict = dataclasses.field(default_factory=dict)
    methods: dict[str, Method] = dataclasses.field(default_factory=dict)

    def method(self, name: str) -> Method:
        """That row on this base."""
        return self.methods.get(name, METHODS[name])


# A complete answer of the sorter takes 6 to 96 tokens, 40 on average, where the sums need 38: what is no longest length
# and no quantile stays as it is.
BASES = {
    "tiny_overthinking": Base(),
    "tiny_sorter": Base(
        {"questions": "sorting", "max_completion_length": 110},
        {
            "cosine_length": Method({"name": "cosine_length", "max_length": 110, "exceed": -1.0}),
            "laser_probed": Method({"name": "length_bonus", "targets": [14]}),  # the tenth; the fifth is the least, 6
            "thinkprune_longest": Method({"name": "truncation", "stages": [[0, 108], [60, 102], [120, 96]]}),
            "dler_longest": dataclasses.replace(METHODS["dler_longest"], reward={"name": "truncation", "limit": 96}),
        },
    ),
}


def flags_of(method: Method, seed: int, output: Path, base: dict | None = None) -> list[str]:
    """The command line of one run; `base`: the flags of its base."""
    values = {"reward": json.dumps(method.reward), "seed": seed, "output_dir": output, **(base or {}), **method.flags}
    return [
        word
        for name, value in values.items()
        for word in (f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)]))
    ]


def run_one(name: str, seed: int, known: "Board", model: str, extra: list[str]) -> None:
    """One run, unless it is there; one that was interrupted goes on."""
    output, base = known.folder / f"{name}-{seed}", BASES[known.base]
    if (output / "adherence.json").exists():
        done = read_result(output).labels["model"]
        if Path(done).name != Path(model).name:
            raise ValueError(f"--folder {known.folder}: {output.name} is a run of {done}, not of {model}; name another")
        return
    if name == TALE:
        settings, *_ = parse(HERE.with_suffix(".yaml"), extra)
        run_tale(
            TaleArguments(
                student=model,
                num_eval_questions=settings.num_eval_questions,
                seed=seed,
                output_dir=str(output),
            )
        )
        return
    resume = ["--resume_from_checkpoint", "true"] if holds_run(output) else []
    flags = [*flags_of(base.method(name), seed, output, base.flags), "--model_name_or_path", model, *resume, *extra]
    share_base(known.folder, name, seed, model)
    run(*parse(HERE.with_suffix(".yaml"), flags), output)


def share_base(folder: Path, name: str, seed: int, model: str) -> None:
    """Hands a new row the measures of the base that an earlier row of its seed has, where both ask for no length."""
    target = folder / f"{name}-{seed}" / "measures"
    if target.exists() or name not in UNASKED:
        return
    for other in UNASKED:
        source = folder / f"{other}-{seed}"
        if (source / "adherence.json").exists() and read_result(source).labels["model"] == model:
            target.mkdir(parents=True)
            for file in (source / "measures").glob("baseline.*"):
                shutil.copy(file, target)  # a row that asks otherwise after all finds that and measures anew
            return


def row_of(result: Result, stage: str, log: list[dict]) -> dict:
    """What the board says of one run."""
    block, cost = result.blocks[stage], result.cost
    [line] = block["rows"]
    levels = block["by_level"]
    steps = [float(entry["completions/mean_length"]) for entry in log if "completions/mean_length" in entry]
    tokens = cost["rollout_tokens"] if "rollout_tokens" in cost else fmean(steps) * cost["rl_rollouts"]
    trained = stage == "trained"
    return {
        "accuracy": line["accuracy"],
        "n": line["n"],
        "mean_length": line["mean_length"],
        "easy": levels["easy"]["mean_length"],
        "hard": levels["hard"]["mean_length"],
        "over_budget": line["over_budget"],
        "rollout_tokens": tokens if trained else 0,
        "minutes": cost["minutes"] if trained else 0,
    }


def collect(folder: Path, seeds: list[int]) -> dict[str, list[dict]]:
    """The rows of every method that has finished runs, one per seed; the base from the first without a budget."""
    board: dict[str, list[dict]] = {"base": []}
    of_base = set()
    for name in ROWS:
        for seed in seeds:
            output = folder / f"{name}-{seed}"
            if not (output / "adherence.json").exists():
                continue
            result = read_result(output)
            log = json.loads((output / "trainer_state.json").read_text())["log_history"]
            if seed not in of_base and name in UNASKED:
                of_base.add(seed)
                board["base"].append(row_of(result, "baseline", log))
            board.setdefault(name, []).append(row_of(result, "trained", log))
    return {name: rows for name, rows in board.items() if rows}


def pareto(points: dict[str, tuple[float, float]]) -> list[str]:
    """The names of those that no other beats in both tokens and accuracy, by tokens.

    >>> pareto({"a": (10, 0.5), "b": (20, 0.9), "c": (30, 0.8)})
    ['a', 'b']
    """
    front, best = [], -1.0
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if points[name][1] > best:
            front.append(name)
            best = points[name][1]
    return front


def means(rows: list[dict]) -> dict:
    """A method's mean over its seeds, with the Wilson interval of all its answers together."""
    mean = {name: fmean([row[name] for row in rows]) for name in rows[0] if rows[0][name] is not None}
    n = sum(row["n"] for row in rows)
    mean["low"], mean["high"] = wilson(sum(row["accuracy"] * row["n"] for row in rows), n)
    return mean


def to_markdown(board: dict[str, list[dict]], command: str) -> str:
    """The board as a table."""
    base = means(board["base"]) if "base" in board else None
    lines = [
        "# The reward board",
        "",
        f"`{command}`, {HERE.name}; means over seeds, 95 % Wilson interval of all answers.",
    ]
    names = ["method", "seeds", "accuracy %", "mean tokens", "of the base's", "easy", "hard", "hard / easy"]
    names += ["over budget %", "rollout tokens", "minutes"]
    rows_of_table = []
    for name, rows in board.items():
        mean = means(rows)
        share = f"{100 * mean['mean_length'] / base['mean_length']:.1f} %" if base else "-"
        over = f"{100 * mean['over_budget']:.1f}" if "over_budget" in mean else "-"
        interval = {"accuracy": mean["accuracy"], "accuracy_low": mean["low"], "accuracy_high": mean["high"]}
        cells = [name, len(rows), accuracy(interval), f"{mean['mean_length']:.1f}", share]
        cells += [f"{mean['easy']:.1f}", f"{mean['hard']:.1f}", f"{mean['hard'] / mean['easy']:.2f}", over]
        rows_of_table.append([*cells, f"{mean['rollout_tokens']:,.0f}", f"{mean['minutes']:.1f}"])
    lines += ["", *table(names, rows_of_table)]
    points = {name: (means(rows)["mean_length"], means(rows)["accuracy"]) for name, rows in board.items()}
    lines += ["", f"On the Pareto front of tokens and accuracy: {', '.join(pareto(points))}.", ""]
    return "\n".join(lines)


def draw(board: dict[str, list[dict]], path: Path, base: str) -> None:
    """Accuracy against tokens, a dot per seed, with the Pareto front of the means."""
    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
    points = {name: (means(rows)["mean_length"], means(rows)["accuracy"]) for name, rows in board.items()}
    colours, markers = plt.get_cmap("tab10"), "Dos^v<>pP"
    for number, (name, rows) in enumerate(board.items()):
        colour = colours(number % 10)
        axes.scatter(
            [row["mean_length"] for row in rows], [row["accuracy"] for row in rows], s=12, color=colour, alpha=0.5
        )
        axes.scatter(*points[name], s=60, color=colour, marker=markers[number % len(markers)], label=name, alpha=0.8)
    front = [points[name] for name in pareto(points)]
    axes.plot(*zip(*front, strict=True), color="grey", linewidth=1, linestyle="--")
    axes.set(xlabel="mean tokens", ylabel="accuracy", title=f"Every reward on {base}")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


@dataclasses.dataclass(frozen=True)
class Board:
    """Every length reward on one board: same base, same questions, same number of rollouts, several seeds.

    Other flags are those of recipes/l1_maxlen.py.
    """

    only: list[str] = option(ROWS, "These rows (tiny_sorter has no tale)", choices=tuple(ROWS), metavar="ROW")
    seeds: list[int] = option([0], "Seeds of each.")
    folder: Path = option(Path("outputs") / "board", "Where the runs lie.")
    base: str = option("tiny_overthinking", "The base of all rows.", choices=tuple(BASES))
    model: str | None = option(None, "Its weights (default: made in FOLDER, tiny_sorter from data/).")
    table_only: bool = option(False, "Run nothing; the table of what there is.")


def make_board(known: Board, extra: list[str]) -> str:
    """Makes the runs that are not there, and the board of all."""
    rows = [name for name in known.only if name != TALE or known.base == "tiny_overthinking"]
    if not rows:
        raise ValueError(f"--only {TALE}: its teacher, data/l1_maxlen, is for tiny_overthinking; leave out --base")
    if not known.table_only:
        made = known.base == "tiny_overthinking" and not known.model
        model = str(make_overthinking(known.folder / known.base)) if made else known.model or known.base
        for seed in known.seeds:
            for name in rows:
                print(f"board: {name}, seed {seed}", file=sys.stderr, flush=True)
                run_one(name, seed, known, model, extra)
    board = collect(known.folder, known.seeds)
    if not board:
        raise ValueError(f"{known.folder} holds no finished run")
    asked = {"base": known.base, "folder": known.folder, "model": known.model}
    default = {item.name: item.default for item in dataclasses.fields(Board)}
    other = "".join(f" --{name} {value}" for name, value in asked.items() if value != default[name])
    command = f"accelerate launch tests/benchmarks/reward_board.py{other} --seeds {' '.join(map(str, known.seeds))}"
    write_json(known.folder / "board.json", board)
    write_text(known.folder / "board.md", to_markdown(board, command))
    draw(board, known.folder / "board.png", Path(known.model or known.base).name)
    return (known.folder / "board.md").read_text()


def main() -> int:
    """The command line."""
    return experiment(Board, make_board)


if __name__ == "__main__":
    sys.exit(main())
