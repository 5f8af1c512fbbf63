"""What only a GPU can show, in a few minutes on a machine with one GPU and no network.

    python -m tests.gpu --model FOLDER --questions FOLDER --output FOLDER            at most 8 minutes
    python -m tests.gpu --parts dial --minutes 7 ... --output THE_SAME_FOLDER        the dial goes on from where it was
    python -m tests.gpu --rehearse --output FOLDER                                   the same on the CPU, at toy size

Its parts, in the order of their worth; each leaves FOLDER/PART.json and .log as it ends, and report.md grows with it:

    tests     the tests that need CUDA (tests/test_cuda.py)
    speed     seconds of a GRPO step, tokens per second: as TRL makes it, with the adapter merged, and with grouped rows
    memory    the peak of those steps beside `rlred plan`
    dial      recipes/l1_exact_qwen2.5_0.5b.yaml from the base to the table, within the minutes that are left

On an H200 with a slow processor (8 to 11 steps of decoding a second, docs/LOG.md) the dial took 220 s before the first
update of its start, for sampling and counting, and 0.6 s for an update: there it needs two calls or three.

`--model` is a folder with the weights of a model of half a billion parameters, `--questions` one with GSM8K's
train.jsonl and test.jsonl. `--parts` runs some of the parts.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import yaml

from rlred.files import write_json, write_text
from rlred.runs.arguments import read_config
from tests.paths import ROOT

# Seconds for loading, four sweeps and the hindsight start, added up from parts: no whole run was timed. With 8 minutes
# in all, two steps of RL are asked for, and a later call that finds the start done asks for more.
RESERVED = 700
RECIPE = ROOT / "recipes" / "l1_exact.py"
CONFIG = ROOT / "recipes" / "l1_exact_qwen2.5_0.5b.yaml"
# Of a run: sizes for the embedded model on a CPU.
TOY = {
    "eval_budgets": "[16, 48]",
    "num_eval_questions": "8",
    "num_questions": "64",
    "budget_low": "16",
    "budget_high": "64",
    "max_completion_length": "80",
    "per_device_train_batch_size": "8",
    "gradient_accumulation_steps": "2",
    "use_cpu": "true",
    "bf16": "false",
    "dtype": "float32",
    "lora_r": "4",
}
TOY_HINDSIGHT = {
    "num_samples": 64,
    "sources": {"brief": 16, "stopped": 32, "continued": 16},
    "num_bins": 3,
    "empty_bins": "warn",
    "only_correct": True,
    "train_answer": True,
    "batch_size": 8,
    "max_updates": 2,
    "cooldown_updates": 1,
    "probe_every": 2,
    "num_probe_questions": 2,
    "num_probe_budgets": 2,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="a folder for everything that is found")
    parser.add_argument("--model", type=Path, help="the folder of the model")
    parser.add_argument("--questions", type=Path, help="the folder of GSM8K")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--rl_steps", type=int, help="GRPO steps of the dial (default: as many as the minutes allow)")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="further flags of the dial's recipe")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with the embedded model")
    options = parser.parse_args()
    if not options.rehearse and not (options.model and options.questions):
        parser.error("--model and --questions are needed; --rehearse takes the embedded model and questions")
    options.output.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.minutes
    failed = []
    for part in options.parts:
        start = time.monotonic()
        try:
            found = PARTS[part](options, deadline)
        except (subprocess.SubprocessError, OSError, ValueError, KeyError) as error:
            found = {"failed": f"{type(error).__name__}: {error}"}
        found["minutes"] = round((time.monotonic() - start) / 60, 2)
        failed += [part] * ("failed" in found)
        write_json(options.output / f"{part}.json", found)
        write_text(options.output / "report.md", report(options.output))
        print(f"== {part}: {found['minutes']} minutes\n{json.dumps(found)[:1500]}", flush=True)
    print((options.output / "report.md").read_text())
    return 1 if failed else 0


def run_tests(options, deadline) -> dict:
    """The tests that need a GPU."""
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_cuda.py"]
    output = logged(options, "tests", words, min(150, deadline - time.monotonic()))
    wanted = " skipped" if options.rehearse else " passed"
    failed = wanted not in output or " failed" in output or " error" in output.splitlines()[-1]
    return {"summary": output.strip().splitlines()[-1], **({"failed": output[-2000:]} if failed else {})}


def run_speed(options, deadline) -> dict:
    """A few GRPO steps as TRL makes them, with merged rollouts, and with rows grouped by length as well."""
    found, grouped = {}, json.dumps({"group_by_length": {}})
    variants = {"stock": ("false", "{}"), "merged rollouts": ("true", "{}"), "merged, grouped": ("true", grouped)}
    for name, (merged, parts) in variants.items():
        folder = options.output / f"speed-{name.replace(', ', '-').replace(' ', '-')}"
        run_recipe(options, folder.name, folder, deadline, hindsight="false", evaluate="false", max_steps="3",
                   merged_rollouts=merged, parts=parts, logging_steps="1", save_strategy="no")  # fmt: skip
        logs = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        steps = [entry for entry in logs if "step_time" in entry][1:]  # the first one warms up
        told = json.loads((folder / "machine.json").read_text())
        seconds = sum(entry["step_time"] for entry in steps)
        tokens = told["rollouts"] * sum(entry["completions/mean_length"] for entry in steps)
        found[name] = {
            "seconds_per_step": round(seconds / len(steps), 2),
            "tokens_per_second": round(tokens / seconds, 1),
            "longest": steps[-1]["completions/max_length"],
            "rollouts_per_step": told["rollouts"],
            "peak_gib": told["peak_gib"],
        }
    return found


def run_memory(options, deadline) -> dict:
    """The measured peak of the steps of `speed` beside the plan's."""
    merged = {**read_config(CONFIG), **{name: yaml.safe_load(text) for name, text in recipe_settings(options).items()}}
    path = options.output / "plan.yaml"
    write_text(path, yaml.safe_dump(merged))
    words = ["-m", "rlred.cli", "plan", "--config", str(path)]
    output = logged(options, "memory", words, min(60, deadline - time.monotonic()))
    planned = re.search(r"\| peak[^|]*\| ([\d.]+)", output)
    if planned is None:
        raise ValueError(f"rlred plan says no peak: {output[-400:]}")
    speed = json.loads((options.output / "speed.json").read_text())
    measured = {name: told["peak_gib"] for name, told in speed.items() if isinstance(told, dict)}
    return {"planned_gib": float(planned.group(1)), "measured_gib": measured}


def run_dial(options, deadline) -> dict:
    """The whole run on the model, from the base's sweep to the table."""
    folder, steps = options.output / "dial", options.rl_steps
    if steps is None:
        speed = options.output / "speed.json"
        timed = json.loads(speed.read_text()) if speed.exists() else {}
        told = timed.get("merged, grouped") or timed.get("merged rollouts", {})  # the latter of an older run
        reserved = 150 if (folder / "hindsight" / "hindsight.json").exists() else RESERVED
        left = deadline - time.monotonic() - reserved
        steps = max(2, int(left / told.get("seconds_per_step", 15)))
    failed = {}
    going_on = {"resume_from_checkpoint": "true"} if (folder / "run.json").exists() else {}
    try:
        run_recipe(options, "dial", folder, deadline, max_steps=str(steps), logging_steps="1", save_steps="5",
                   **going_on)  # fmt: skip
    except (subprocess.SubprocessError, ValueError) as error:  # what it had measured until then is still reported
        failed = {"failed": f"{type(error).__name__}: {error}"}
    tables = [path.read_text() for path in (folder / "adherence.md", folder / "hindsight" / "bins.md") if path.exists()]
    stages = {path.stem: json.loads(path.read_text())["overall"] for path in (folder / "measures").glob("*.json")
              if "asked" not in path.name}  # fmt: skip
    probes = re.findall(
        r"after (\d+) updates, rank correlation (-?[\d.]+)", (options.output / "dial.log").read_text("utf-8")
    )
    return {"rl_steps": steps, "stages": stages, "probes": probes, "tables": tables, **failed}


def recipe_settings(options) -> dict[str, str]:
    """Flags that fit the recipe to this machine."""
    if options.rehearse:
        return {"model_name_or_path": "tiny_reasoner", "questions": "sums", **TOY}
    return {
        "model_name_or_path": str(options.model),
        "questions": str(options.questions / "train.jsonl"),
        "eval_questions": str(options.questions / "test.jsonl"),
    }


def run_recipe(options, name: str, folder: Path, deadline: float, **settings) -> None:
    """The recipe in a process of its own; `folder`/machine.json says what it took."""
    flags = {**recipe_settings(options), "output_dir": str(folder), "disable_tqdm": "true", **settings}
    if options.rehearse:
        flags |= {"hindsight_settings": json.dumps(TOY_HINDSIGHT)}
    words = [
        "--config",
        str(CONFIG),
        *[word for flag, value in flags.items() for word in (f"--{flag}", *_words(flag, value))],
    ]
    words += options.flags if name == "dial" else []
    output = logged(options, name, ["-c", CHILD, str(RECIPE), str(folder), *words], deadline - time.monotonic())
    if not (folder / "adapter_model.safetensors").exists():
        raise ValueError(f"{name}: the run left no adapter: {output[-600:]}")


def _words(flag: str, value: str) -> list[str]:
    return [str(item) for item in yaml.safe_load(value)] if flag == "eval_budgets" else [value]


# The recipe's own main, and what it took.
CHILD = """
import json, sys, time
from pathlib import Path
recipe, folder, sys.argv[1:] = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
import torch
from rlred.runs import grpo
start = time.monotonic()
try:
    status = grpo.main(Path(recipe))
finally:
    cuda = torch.cuda.is_available()
    told = {
        "seconds": round(time.monotonic() - start, 1),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
    }
    if folder.exists():
        training = json.loads((folder / "run.json").read_text())["training"]
        told["rollouts"] = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
        (folder / "machine.json").write_text(json.dumps(told))
sys.exit(status)
"""


def logged(options, name: str, words: list[str], seconds: float) -> str:
    """Runs Python with these words; its output goes to a file as it comes and is returned."""
    path = options.output / f"{name}.log"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with open(path, "a" if "--resume_from_checkpoint" in words else "w", encoding="utf-8") as log:
        subprocess.run([sys.executable, "-u", *words], stdout=log, stderr=subprocess.STDOUT, timeout=max(10, seconds),
                       cwd=ROOT, env=environment, check=False)  # fmt: skip
    return path.read_text(encoding="utf-8")


def report(folder: Path) -> str:
    """What is there so far, as Markdown."""
    lines = ["# On a GPU", ""]
    for part in PARTS:
        path = folder / f"{part}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        lines += [f"## {part} ({found['minutes']} minutes)", ""]
        tables = found.pop("tables", [])
        lines += ["```", json.dumps(found, indent=1), "```", "", *tables, ""]
    return "\n".join(lines)


PARTS = {"tests": run_tests, "speed": run_speed, "memory": run_memory, "dial": run_dial}

if __name__ == "__main__":
    sys.exit(main())
