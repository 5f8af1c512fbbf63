"""Where the time of a GRPO step goes at real sizes: 1,024 completions of 4,096 tokens, a vocabulary of 151,936.

    python -m tests.benchmarks.real_sizes                        64 completions of 512 bytes: whether it runs
    python -m tests.benchmarks.real_sizes --completions 1024 --length 4096 --tokenizer FOLDER     a released tokenizer
    ... --only reward adherence selection loss                   these parts, one after the other, and no whole step

Stock TRL and rlred take the same step in turns, in two pairs: the plain step, each with rewards of its own, and the
step on the fifth of the tokens whose entropy is highest. Nothing is sampled: the completions are made-up reasoning,
a quarter each with the correct answer in a box, an incorrect one, an answer without a box, and cut at the cap.

    at full size     rows, texts, rewards, adherence, selection, tensors, log
    extrapolated     loss, backward and scoring, from --micro_batches of one completion each; in the place of the other
                     completions' log-probabilities and entropies, random numbers go on
    left out         generation, the optimizer

With `--only` a part is a run by itself, so that less is in memory at once, and what was measured is printed where a
later one ends for want of it: `loss` and scoring are those of completions of `--loss_tokens`, times the tokens that the
others have (on a CPU the loss of one of 4,096 may hold ten tensors of 2.4 GiB). `selection` scores nothing.

Seconds are the processor's, of this process and of the grading server. Memory is the peak of a part above what stood
when it began; extrapolated parts peak in one micro-batch. The body is tiny, so that the head is nearly all of the loss.
"""

import contextlib
import ctypes
import functools
import gc
import os
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, PrinterCallback, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer
from trl.rewards import accuracy_reward, get_soft_overlong_punishment

from rlred.data.budgets import BudgetSampler, training_rows
from rlred.data.prompts import Prompts
from rlred.flags import option, parse
from rlred.rewards import Correctness, MaxLength, grader
from rlred.runs.chassis import watchers
from rlred.training.adherence import LogsAdherence
from rlred.training.early_stop import EarlyStop
from rlred.training.token_selection import TokenSelection
from rlred.training.trainer import ComposedGRPOTrainer

VOCABULARY = 151_936
HEADER = ("part", "of", "stock TRL, s", "rlred, s", "of rlred's step", "stock TRL, MiB", "rlred, MiB")
FRACTION = 0.2
# What --only names: the pairs in which a part is measured, and its parts in PARTS.
ONLY = {
    "reward": (("plain",), ("TRL's own: columns for the rewards", "grading", "length reward")),
    "adherence": (("plain",), ("adherence: texts", "adherence: logged")),
    "selection": (("selection",), ("early stop", "selection")),
    "loss": (("plain", "selection"), ("scoring", "loss", "backward")),
}
# Of nested parts the inner one has its own time. `model`: extrapolated; `rlred`: there would be none without it.
PARTS = [
    ("rows", "both", None, None),
    ("TRL's own: prompts, texts, tensors, advantages", "TRL", GRPOTrainer, "_generate_and_score_completions"),
    ("TRL's own: columns for the rewards", "TRL", GRPOTrainer, "_calculate_rewards"),
    ("adherence: texts", "rlred", LogsAdherence, "_restore_thinking"),
    ("adherence: logged", "rlred", LogsAdherence, "_log"),
    ("grading", "both", Correctness, "__call__"),
    ("length reward", "both", MaxLength, "__call__"),
    ("early stop", "rlred", EarlyStop, "limits"),
    ("selection", "rlred", TokenSelection, "token_weights"),
    ("scoring", "model", ComposedGRPOTrainer, "score"),
    ("TRL's own: shuffled and split", "TRL", GRPOTrainer, "_prepare_inputs"),
    ("loss", "model", GRPOTrainer, "compute_loss"),
    ("backward", "model", Accelerator, "backward"),
    ("log and callbacks", "both", None, None),
]


@dataclass(frozen=True)
class RealSizes:
    """Measures the parts of a step."""

    tokenizer: str | None = option(None, "A model or its folder (default: bytes as tokens).")
    completions: int = option(64, "Completions of a step.", metavar="N")
    length: int = option(512, "Tokens of each.", metavar="N")
    generations: int = option(8, "Completions of a group.", metavar="N")
    micro_batches: int = option(2, "Completions whose loss is measured; 0: none, and the rest alone.", metavar="N")
    hidden: int = option(32, "Width of the body.", metavar="N")
    repeats: int = option(3, "Steps of each trainer.", metavar="N")
    pairs: list[str] = option(["plain", "selection"], "Which pairs.", choices=("plain", "selection"))
    only: list[str] = option([], "These parts by themselves (default: whole steps).", choices=tuple(ONLY))
    loss_tokens: int = option(1024, "Tokens of the completions whose loss --only measures.", metavar="N")

    def of(self, part: str) -> "RealSizes":
        """The sizes at which a part is measured by itself."""
        pairs = [pair for pair in ONLY[part][0] if pair in self.pairs]
        if part != "loss":
            return replace(self, pairs=pairs, micro_batches=0)
        length = min(self.length, self.loss_tokens)
        return replace(
            self, pairs=pairs, micro_batches=max(1, self.micro_batches), completions=self.generations, length=length
        )


class Meter:
    """Processor seconds and peak memory of the parts of a step, less those of the parts inside."""

    def __init__(self):
        self.seconds, self.peaks = defaultdict(float), defaultdict(int)
        self.open: list[str] = []

    @contextlib.contextmanager
    def part(self, name: str):
        outer = self.base if self.open else None
        self._close()
        self.open.append(name)
        self._begin(None if outer is None else resident("VmRSS"))  # collected once: not at each inner call
        try:
            yield
        finally:
            self._close()
            self.open.pop()
            if outer is not None:
                self._begin(outer)

    def _begin(self, base: int | None = None) -> None:
        if base is None:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)  # what was freed is not resident any more
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to what is resident now
        self.base = resident("VmRSS") if base is None else base
        self.start = processor_seconds()

    def _close(self) -> None:
        if self.open:
            name = self.open[-1]
            self.seconds[name] += processor_seconds() - self.start
            self.peaks[name] = max(self.peaks[name], resident("VmHWM") - self.base)


METER: Meter | None = None


def resident(field: str) -> int:
    """A figure of /proc/self/status in bytes."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return 1024 * int(line.split()[1])


def processor_seconds() -> float:
    """Of this process, and of the grading server with the children that it has waited for."""
    server = grader._server(os.getpid())._process
    if server is None:
        return time.process_time()
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def watch(owner: type, method: str, name: str) -> None:
    """Has the meter know of every call of a method."""
    own = getattr(owner, method)

    @functools.wraps(own)
    def metered(*args, **kwargs):
        if METER is None:
            return own(*args, **kwargs)
        with METER.part(name):
            return own(*args, **kwargs)

    setattr(owner, method, metered)


SCORED = 0  # completions of a batch that are scored


def score_some() -> None:
    """Where a whole batch is to be scored, `SCORED` completions are; random numbers stand for the others."""
    own = GRPOTrainer._get_per_token_logps_and_entropies

    def scored(self, model, ids, mask, keep, batch_size=None, **kwargs):
        if batch_size is None:
            return own(self, model, ids, mask, keep, **kwargs)
        if SCORED:
            own(self, model, ids[:SCORED], mask[:SCORED], keep, batch_size=batch_size, **kwargs)
        return -12 * torch.rand(len(ids), keep), 12 * torch.rand(len(ids), keep), None

    GRPOTrainer._get_per_token_logps_and_entropies = scored


def bytes_as_tokens() -> PreTrainedTokenizerFast:
    """A tokenizer without merges: every byte is a token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.chat_template = "{% for turn in messages %}{{ turn.content }}\n{% endfor %}"
    return made


def question_rows(count: int) -> Dataset:
    """Questions, half of whose answers are numbers and half formulas."""
    rng, rows = random.Random(0), []
    for number in range(count):
        a, b, c = rng.randint(2, 99), rng.randint(2, 9), rng.randint(2, 99)
        formulas = [
            f"\\frac{{{a}}}{{{b * c + 1}}}",
            f"{b}\\sqrt{{{c}}}",
            f"x^{{{b}}}-{a}",
            f"({a}, \\frac{{\\pi}}{{{b}}})",
        ]
        solution = f"{100 * a + c}" if number % 2 else formulas[number // 2 % 4]
        question = f"In the year {number}, {a} boxes of {b} cups and {c} more were packed. What does that come to?"
        rows.append({"question_id": number, "question": question, "solution": solution})
    return Dataset.from_list(rows)


def reasoning(rng: random.Random) -> str:
    """Some sentences of it."""
    a, b = rng.randint(2, 99), rng.randint(2, 99)
    return rng.choice(
        [
            f"Let me check: \\frac{{{a}}}{{{b}}} is about {a / b:.3f}, so $x = {a} + {b} = {a + b}$. ",
            f"Wait, that isn't consistent with the {a} boxes that were packed in the morning. ",
            f"So the total is {a} * {b} = {a * b}, and we subtract {b}, giving {a * b - b}.\n\n",
            f"Hmm, we need the case where the sum of the digits of \\sqrt{{{a * b}}} is at most {b}. ",
        ]
    )


def made_up(tokenizer, rows: list[dict], length: int) -> list[list[int]]:
    """Completions of `length` tokens, end of sequence included where they end."""
    rng, made = random.Random(1), []
    blocks = [tokenizer("".join(reasoning(rng) for _ in range(80)))["input_ids"] for _ in range(64)]
    for number, row in enumerate(rows):
        gold, kind = row["solution"], number % 4
        wrong = f"{gold}+{rng.randint(1, 3)}" if not gold.isdigit() else str(int(gold) + rng.randint(1, 3))
        said = [f"The answer is $\\boxed{{{gold}}}$.", f"So $x=\\boxed{{{wrong}}}$.", f"The final answer is ${gold}$."]
        end = [] if kind == 3 else [*tokenizer(f"</think>\n\n{said[kind]}")["input_ids"], tokenizer.eos_token_id]
        ids: list[int] = []
        while len(ids) < length:
            ids += rng.choice(blocks)
        made.append(ids[: length - len(end)] + end)
    return made


def make_trainer(settings: RealSizes, tokenizer, rows: Dataset, kind: str, folder: Path) -> GRPOTrainer:
    """Stock TRL with its rewards, or rlred with what a run has."""
    torch.manual_seed(0)
    size = {"hidden_size": settings.hidden, "intermediate_size": 2 * settings.hidden, "num_hidden_layers": 1}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "tie_word_embeddings": True}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=VOCABULARY, **size, **heads, **ends)).float()
    whose, _, which = kind.partition(", ")
    args = GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to="none",
        per_device_train_batch_size=1,
        gradient_accumulation_steps=settings.completions,
        steps_per_generation=settings.completions,
        num_generations=settings.generations,
        max_completion_length=settings.length,
        shuffle_dataset=False,
        loss_type="dapo",
        scale_rewards="none",
        beta=0.0,
        top_entropy_quantile=FRACTION if kind == "stock TRL, selection" else 1.0,
        reward_weights=[1.0, 1.0] if whose == "stock TRL" else [1.0, 0.0],
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    told = {
        "model": model,
        "args": args,
        "processing_class": tokenizer,
        "peft_config": LoraConfig(target_modules="all-linear"),
    }
    if whose == "stock TRL":
        overlong = get_soft_overlong_punishment(settings.length, settings.length // 4)
        plain = Dataset.from_list([{**row, "solution": f"${row['solution']}$"} for row in rows])
        return GRPOTrainer(reward_funcs=[accuracy_reward, overlong], train_dataset=plain, **told)
    # Over so wide a window no completion is decided before the cap: those of both trainers are as long.
    reward = LogsAdherence(MaxLength(alpha=1e-4), settings.length, (tokenizer.eos_token_id,), tokenizer, "</think>")
    told |= {"reward_funcs": [reward, Correctness()], "train_dataset": rows, "callbacks": watchers(folder, args)}
    parts = [TokenSelection(fraction=FRACTION), EarlyStop()] if which == "selection" else []
    return ComposedGRPOTrainer(parts=parts, **told) if parts else GRPOTrainer(**told)


def take_step(trainer: GRPOTrainer, batches, micro_batches: int) -> Meter:
    """One step, less what is left out; the parts that are extrapolated are still those of a few micro-batches."""
    global METER
    grader.verdict.cache_clear()  # a step's answers are new
    grader.equal("x+1", "1+x")  # the server is there
    meter = METER = Meter()
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trainer._step, trainer._buffered_inputs = 0, None
    try:
        with meter.part("rows"):
            batch = next(batches)
        for number in range(max(1, micro_batches)):
            inputs = trainer._prepare_inputs(batch)
            if number < micro_batches:
                trainer.accelerator.backward(trainer.compute_loss(trainer.model, inputs))
            trainer._step += 1
        trainer.model.zero_grad()
        trainer.state.global_step += 1
        with meter.part("log and callbacks"):
            trainer.callback_handler.on_step_end(trainer.args, trainer.state, trainer.control)
            trainer.log({"loss": 0.0})
    finally:
        METER = None
    scale = trainer.args.gradient_accumulation_steps / max(1, micro_batches)
    for name, whose, *_ in PARTS:
        meter.seconds[name] *= scale if whose == "model" else 1
    return meter


def report(pair: str, steps: dict[str, list[Meter]], parts: tuple[str, ...] = ()) -> None:
    """The parts side by side, or these parts alone, and the ratio of the steps."""
    found = list(steps.values())
    names = [(name, whose) for name, whose, *_ in PARTS if any(step.seconds[name] for own in found for step in own)]
    names = [one for one in names if not parts or one[0] in parts]

    def whole(step: Meter, left_out: str = "") -> float:
        return sum(step.seconds[name] for name, whose in names if whose != left_out)

    total = [statistics.median(map(whole, own)) for own in found]
    load = os.getloadavg()[0]
    print(f"\n{pair}: medians of {len(found[0])} steps each, in turns; load of the machine {load:.1f}\n")
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for name, whose in names:
        seconds = [statistics.median(step.seconds[name] for step in own) for own in found]
        peaks = [max(step.peaks[name] for step in own) / 2**20 for own in found]
        cells = [f"{seconds[0]:.2f}", f"{seconds[1]:.2f}", f"{seconds[1] / total[1]:.3%}", *(f"{n:.0f}" for n in peaks)]
        print(f"| {name} | {'model, extrapolated' if whose == 'model' else whose} | {' | '.join(cells)} |")
    print(f"| {'these parts' if parts else 'the step'} | | {total[0]:.1f} | {total[1]:.1f} | | | |", flush=True)
    if parts:
        return
    ratios = [whole(own) / whole(stock) for stock, own in zip(*found, strict=True)]
    print(f"\nrlred / stock TRL, median of the pairs: {statistics.median(ratios):.3f}", *(f"{r:.3f}" for r in ratios))
    rest = [statistics.median(whole(step, left_out="model") for step in own) for own in found]
    print(f"all but the model's parts: {rest[0]:.2f} s and {rest[1]:.2f} s", flush=True)


def measure(settings: RealSizes, tokenizer, parts: tuple[str, ...] = (), scale: float = 1.0) -> None:
    """Takes the steps of each pair and prints its table; seconds of the model's parts are times `scale`."""
    global SCORED
    questions = question_rows(settings.completions // settings.generations)
    rows = training_rows(
        questions,
        Prompts(),
        BudgetSampler(low=settings.length // 8, high=settings.length // 2),
        num_rows=settings.repeats * len(questions),
    )
    asked = [row for row in rows for _ in range(settings.generations)]
    completions = made_up(tokenizer, asked[: settings.completions], settings.length)
    assert all(len(ids) == settings.length for ids in completions)
    GRPOTrainer._generate_single_turn = lambda *args, **kwargs: (completions, None)
    SCORED = settings.micro_batches
    with tempfile.TemporaryDirectory() as folder:
        for pair in settings.pairs:
            kinds = [f"{whose}, {pair}" for whose in ("stock TRL", "rlred")]
            trainers = [make_trainer(settings, tokenizer, rows, kind, Path(folder) / kind) for kind in kinds]
            for trainer in trainers:
                trainer.remove_callback(PrinterCallback)
                trainer.callback_handler.on_train_begin(trainer.args, trainer.state, trainer.control)
            batches = [iter(trainer.get_train_dataloader()) for trainer in trainers]
            steps: dict[str, list[Meter]] = {kind: [] for kind in kinds}
            for number in range(settings.repeats):
                for kind, trainer, own in zip(kinds, trainers, batches, strict=True):
                    start = time.monotonic()
                    step = take_step(trainer, own, settings.micro_batches)
                    for name, whose, *_ in PARTS:
                        step.seconds[name] *= scale if whose == "model" else 1
                    steps[kind].append(step)
                    said = f"{kind}, step {number + 1} of {settings.repeats}"
                    print(f"{said}: {time.monotonic() - start:.1f} s on the clock", file=sys.stderr, flush=True)
            report(pair, steps, parts)


def main() -> None:
    settings = parse(RealSizes, sys.argv[1:], "real_sizes")
    tokenizer = AutoTokenizer.from_pretrained(settings.tokenizer) if settings.tokenizer else bytes_as_tokens()
    score_some()
    for name, _, owner, method in PARTS:
        if method:
            watch(owner, method, name)
    if not settings.only:
        measure(settings, tokenizer)
    for part in settings.only:
        own, said = settings.of(part), f"{settings.completions} completions of {settings.length} tokens"
        scale = settings.completions * settings.length / (own.completions * own.length) if part == "loss" else 1.0
        print(f"\n{part}, for {said}; measured: {own.completions} of {own.length}", flush=True)
        measure(own, tokenizer, ONLY[part][1], scale)


if __name__ == "__main__":
    main()
