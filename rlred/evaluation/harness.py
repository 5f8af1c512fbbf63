"""`rlred evaluate --as_task`: a task with which lm_eval or lighteval asks for budgets and measures how they were kept.

The folder holds the asked prompts as text, what grading has to know, and the harness's own task file. The harness
generates; its Python needs rlred beside it, which grades each completion and counts its tokens:

    questions/test.jsonl   one row for each question under each condition, its prompt rendered by the chat template
    task.json              tokenizer, ids that end a completion, cap, end of thinking
    rlred_adherence.*      the task: YAML and Python for lm_eval, Python for lighteval

lighteval hands over the ids of a completion, which are counted as everywhere. lm_eval hands over its text alone: it is
tokenised again, with one more for the end of sequence where the cap leaves room. That is exact where text and ids
belong to each other one to one, and an estimate else; a special token that the decoding drops is not counted.
"""

import json
import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from transformers import GenerationConfig

from rlred.data.models import load_tokenizer
from rlred.data.prompts import prompt_text
from rlred.evaluation.conditions import budget_conditions
from rlred.evaluation.evaluate import Candidate, candidates_of, questions_of
from rlred.evaluation.measures import row, within_question_rank_correlation
from rlred.evaluation.sampling import Grading
from rlred.evaluation.settings import Evaluation
from rlred.evaluation.sweep import outcomes_of
from rlred.files import read_record, write_json, write_text
from rlred.rewards import Correctness
from rlred.tiny import resolve_adapter, resolve_model

NAME = "rlred_adherence"
MEANS = ("accuracy", "mean_length", "truncated", "mean_error", "mean_abs_error", "over_budget")
ALONE = (
    "efforts",
    "interruptions",
    "num_samples",
    "more_questions",
    "paraphrase",
    "out_of_range",
    "baselines",
    "per_prompt_cap",
    "vllm",
    "model_revision",
    "load_in_4bit",
    "load_in_8bit",
)


@dataclass(frozen=True)
class Task:
    """What a task's Python has to know to measure one completion of a row of questions/test.jsonl."""

    tokenizer_name: str
    stops: list[int]
    """Ids that end a completion."""
    cap: int
    """Tokens at which one is cut."""
    labels: list[str]
    """The conditions: `exact_16`, `max_32`, `free`, ..."""
    end_of_thinking: str | None = None
    require_end_of_thinking: bool = False
    trust_remote_code: bool = False
    temperature: float = 0.0
    dtype: str = "float32"

    @classmethod
    def read(cls, folder: Path) -> "Task":
        """The task that was written into a folder."""
        return cls(**read_record(Path(folder) / "task.json"))

    @property
    def loading(self) -> list[str]:
        """How the weights are read, in the words of both harnesses."""
        return [f"dtype={self.dtype}", *(["trust_remote_code=True"] if self.trust_remote_code else [])]

    @cached_property
    def tokenizer(self):
        return load_tokenizer(self.tokenizer_name, self.trust_remote_code)

    @property
    def correlates(self) -> bool:
        """Whether a question is asked for two budgets in one mode."""
        modes = [label.partition("_")[0] for label in self.labels]
        return len(set(modes)) < len(modes)

    def ids_of(self, text: str) -> list[int]:
        """Ids of a text whose own ids are not known, at most `cap`, with the end of sequence where it is shorter."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"][: self.cap]
        return ids if len(ids) == self.cap else [*ids, self.stops[0]]

    def whole(self, ids: Sequence[int]) -> list[int]:
        """Ids up to the end of sequence, without the padding behind it."""
        end = next((place + 1 for place, token in enumerate(ids) if token in self.stops), len(ids))
        return [int(token) for token in ids[:end]][: self.cap]

    def values(self, asked: dict, ids: list[int]) -> dict:
        """What one completion adds to the figures of its condition, by their names.

        A figure is the mean of its values; `..._rmse` is the root of their mean square, and `rank_correlation` is
        `correlation` of them. A completion without a grade adds nothing to the accuracy.
        """
        grading = Grading(Correctness(require_end_of_thinking=self.require_end_of_thinking))
        grading = grading.fitted(self.end_of_thinking, self.tokenizer)
        asked = {**asked, "solution": json.loads(asked["solution"])}
        told = {"tokenizer": self.tokenizer, "stops": set(self.stops), "grading": grading}
        [outcome] = outcomes_of([asked], [ids], **told)
        line, label = row([outcome]), label_of(asked["mode"], asked["budget"])
        found = {f"{label}_{name}": float(line[name]) for name in (*MEANS, "rmse") if line[name] is not None}
        if self.correlates:
            pair = [asked["question_id"], asked["mode"], asked["budget"], outcome["length"]]
            found["rank_correlation"] = json.dumps(pair)  # lighteval keeps the values in a table of one type a column
        return found

    def names(self) -> list[str]:
        """The names of all figures."""
        lines = [(label, name) for label in self.labels for name in (*MEANS, "rmse")]
        own = [f"{label}_{name}" for label, name in lines if label != "free" or name in MEANS[:3]]
        return own + ["rank_correlation"] * self.correlates


def label_of(mode: str, budget: int | None) -> str:
    """The name of a condition.

    >>> label_of("exact", 16), label_of("free", None)
    ('exact_16', 'free')
    """
    return mode if budget is None else f"{mode}_{budget}"


def root_mean_square(values: Iterable[float]) -> float:
    """The root of the mean square.

    >>> root_mean_square([3.0, 4.0, 0.0, 0.0])
    2.5
    """
    values = list(values)
    return math.sqrt(sum(value**2 for value in values) / len(values))


def correlation(values: Iterable[str]) -> float:
    """Rank correlation of budget and length within a question; values are JSON, [question, mode, budget, length].

    >>> correlation(['[0, "max", 16, 10]', '[0, "max", 32, 40]', '[1, "max", 16, 9]', '[1, "max", 32, 9]'])
    0.5
    """
    names = ("question_id", "mode", "budget", "length")
    return within_question_rank_correlation(dict(zip(names, json.loads(value), strict=True)) for value in values)


def write_task(settings: Evaluation, harness: str, output: Path) -> str:
    """Writes the task into a folder and returns the command that runs it there.

    Raises `ValueError` for what a harness does not measure, for several models, and where the folder holds a task.
    """
    plain = Evaluation(budgets=[1])
    for name in ALONE:
        if getattr(settings, name) != getattr(plain, name):
            raise ValueError(f"--{name}: a task asks one model for budgets, once each; leave it out beside --as_task")
    if len(settings.model) > 1 or len(settings.adapter) > 1:
        raise ValueError("--as_task: name one model or one adapter, whose tokenizer and words the task has")
    if (output / "task.json").exists():
        raise ValueError(f"{output}/task.json exists and is not written over; name another folder with --output")
    candidate = candidates_of(settings.model, settings.adapter, settings.wording, settings.given())[-1]
    tokenizer = load_tokenizer(candidate.model, settings.trust_remote_code, "--model")
    prompts = candidate.prompts.fitted(tokenizer)
    if prompts.markers:
        raise ValueError("--as_task: the adapter writes markers of counted thinking, which only rlred takes out")
    conditions = budget_conditions(prompts, sorted(set(settings.budgets)), settings.modes)
    task = Task(
        _place(candidate.model),
        stops_of(candidate.model, tokenizer),
        settings.max_completion_length or 2 * max(settings.budgets),
        [label_of(condition.mode, condition.budget) for condition in conditions],
        prompts.end_of_thinking,
        settings.require_end_of_thinking,
        settings.trust_remote_code,
        settings.temperature,
        settings.dtype or "auto",
    )
    lines = []
    for condition in conditions:
        for question in questions_of(settings, settings.questions):
            known = {name: question.get(name) for name in ("question_id", "level")}
            known |= condition.labels() | {"solution": json.dumps(question["solution"])}
            lines.append({"prompt": prompt_text(tokenizer, condition.prompt(question, tokenizer)), **known})
    output = output.resolve()
    write_text(output / "questions" / "test.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    files, command = HARNESSES[harness]
    for name, text in files(task, tokenizer, output).items():
        write_text(output / name, text)
    write_json(output / "task.json", asdict(task))
    return command(candidate, task, output)


def stops_of(model: str, tokenizer) -> list[int]:
    """The ids that end a completion, the tokenizer's first: with those that the model declares, where it does."""
    try:
        declared = GenerationConfig.from_pretrained(resolve_model(model)).eos_token_id
    except OSError:
        declared = None
    declared = declared if isinstance(declared, list) else [declared]
    return list(dict.fromkeys(token for token in (tokenizer.eos_token_id, *declared) if token is not None))


LM_EVAL_PYTHON = """# What lm_eval calls; rlred must be importable here. Written by `rlred evaluate --as_task lm_eval`.
from pathlib import Path

from rlred.evaluation.harness import Task, correlation, root_mean_square  # noqa: F401

TASK = Task.read(Path(__file__).parent)


def process_results(doc, results):
    return TASK.values(doc, TASK.ids_of(results[0]))
"""

LIGHTEVAL_PYTHON = """# A custom task of lighteval; rlred must be importable here.
# Written by `rlred evaluate --as_task lighteval`.
from pathlib import Path

from lighteval.metrics.metrics_sample import SampleLevelComputation
from lighteval.metrics.utils.metric_utils import SampleLevelMetricGrouping
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc, SamplingMethod
from numpy import mean

from rlred.evaluation.harness import Task, correlation, root_mean_square

HERE = Path(__file__).resolve().parent
TASK = Task.read(HERE)


class Adherence(SampleLevelComputation):
    def compute(self, doc, model_response, **kwargs):
        return TASK.values(doc.specific, TASK.whole(model_response.output_tokens[0]))


def prompt(line, task_name=None):
    return Doc(task_name=task_name, query=line["prompt"], choices=[""], gold_index=0, specific=line)


def figure(name):
    # lighteval bootstraps an error for what it does not know as a mean, unless it comes as a mapping.
    if name == "rank_correlation":
        return lambda values: {name: correlation(values)}
    return (lambda values: {name: root_mean_square(values)}) if name.endswith("_rmse") else mean


METRIC = SampleLevelMetricGrouping(
    metric_name=TASK.names(),
    higher_is_better={name: name.endswith(("accuracy", "correlation")) for name in TASK.names()},
    category=SamplingMethod.GENERATIVE,
    sample_level_fn=Adherence(),
    corpus_level_fn={name: figure(name) for name in TASK.names()},
)
TASKS_TABLE = [
    LightevalTaskConfig(
        name="rlred_adherence",
        prompt_function=prompt,
        hf_repo=str(HERE / "questions"),
        hf_subset="default",
        hf_avail_splits=["test"],
        evaluation_splits=["test"],
        generation_size=TASK.cap,
        stop_sequence=[],
        metrics=[METRIC],
    )
]
"""


def _lm_eval(task: Task, tokenizer, output: Path) -> dict[str, str]:
    """The files of lm_eval's task, by name."""
    metrics = []
    for name in task.names():
        own = {"rank_correlation": "correlation"}.get(name, "root_mean_square" if name.endswith("_rmse") else None)
        told = f"!function {NAME}.{own}" if own else "mean"
        better = str(name.endswith(("accuracy", "correlation"))).lower()
        metrics.append(f"  - metric: {name}\n    aggregation: {told}\n    higher_is_better: {better}\n")
    sampled = f"  do_sample: true\n  temperature: {task.temperature}\n  top_k: 0\n  top_p: 1.0\n"
    yaml = (
        f"task: {NAME}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        f"    test: {json.dumps(str(output / 'questions' / 'test.jsonl'))}\n"
        "test_split: test\noutput_type: generate_until\nnum_fewshot: 0\ndoc_to_text: prompt\ndoc_to_target: solution\n"
        f"generation_kwargs:\n  until: {json.dumps([tokenizer.decode([token]) for token in task.stops])}\n"
        f"  max_gen_toks: {task.cap}\n" + (sampled if task.temperature else "  do_sample: false\n")
    )
    yaml += f"process_results: !function {NAME}.process_results\nmetric_list:\n" + "".join(metrics)
    return {f"{NAME}.yaml": yaml, f"{NAME}.py": LM_EVAL_PYTHON}


def _lm_eval_command(candidate: Candidate, task: Task, output: Path) -> str:
    adapter = [f"peft={Path(resolve_adapter(candidate.adapter)).resolve()}"] if candidate.adapter else []
    told = ",".join(
        [f"pretrained={_place(candidate.model)}", *adapter, f"tokenizer={task.tokenizer_name}", *task.loading]
    )
    words = ["lm_eval", "--model", "hf", "--model_args", told, "--tasks", NAME, "--include_path", str(output)]
    return shlex.join([*words, "--batch_size", "32", "--output_path", str(output / "results")])


def _lighteval(task: Task, tokenizer, output: Path) -> dict[str, str]:
    """The file of lighteval's task, by name."""
    return {f"{NAME}.py": LIGHTEVAL_PYTHON}


def _lighteval_command(candidate: Candidate, task: Task, output: Path) -> str:
    place, before = _place(candidate.model), ""
    if candidate.adapter:
        # lighteval 0.13 merges an adapter itself, in float16 and into a folder beside it.
        place, adapter = str(output / "model" / "merged"), str(Path(resolve_adapter(candidate.adapter)).resolve())
        before = shlex.join(["rlred", "export", adapter, "--merge", "--output", str(output / "model")]) + " && "
    told = f"generation_parameters={{temperature:{task.temperature}}}"
    settings = ",".join(
        [f"model_name={place}", "override_chat_template=false", "add_special_tokens=false", *task.loading, told]
    )
    words = ["lighteval", "accelerate", f"{settings},batch_size=32", f"{NAME}|0"]
    words += ["--custom-tasks", str(output / f"{NAME}.py"), "--output-dir", str(output / "results")]
    return before + shlex.join(words)


def _place(name: str) -> str:
    """A folder from its root, or a Hub id."""
    found = Path(resolve_model(name))
    return str(found.resolve()) if found.is_dir() else name


HARNESSES = {"lm_eval": (_lm_eval, _lm_eval_command), "lighteval": (_lighteval, _lighteval_command)}
