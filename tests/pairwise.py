"""Two training runs in one process, a step of the one after a step of the other: what disturbs one disturbs both."""

import threading
import time

import torch
from transformers import TrainerCallback
from trl import GRPOTrainer, get_peft_config

from rlred.data.budgets import training_rows
from rlred.data.questions import load_questions
from rlred.evaluation.sweep import stop_ids
from rlred.runs.arguments import parse
from rlred.runs.chassis import load_model, num_rows
from rlred.runs.grpo import make_rewards, make_trainer
from rlred.training.adherence import LogsAdherence
from tests.paths import ROOT


class Turns(TrainerCallback):
    """Times a run's steps and hands the machine to the next run after each."""

    def __init__(self, turn: list[int], changed: threading.Condition, own: int, of: int):
        self.turn, self.changed, self.own, self.of = turn, changed, own, of
        self.seconds: list[float] = []
        self.processor_seconds: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs):
        with self.changed:
            self.changed.wait_for(lambda: self.turn[0] == self.own)
        torch.manual_seed(state.global_step)  # the same random numbers for all of them
        self.begin = time.perf_counter(), time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(time.perf_counter() - self.begin[0])
        self.processor_seconds.append(time.process_time() - self.begin[1])
        with self.changed:
            self.turn[0] = (self.own + 1) % self.of
            self.changed.notify_all()


def train_in_turns(trainers) -> tuple[list[list[float]], list[list[float]]]:
    """Trains all of them for the same number of steps; the seconds of each one's steps, by the clock and the processor.

    The processor's are those of this process, which the other programs of a busy machine do not lengthen.
    """
    turn, changed = [0], threading.Condition()
    turns = [Turns(turn, changed, own, len(trainers)) for own in range(len(trainers))]
    threads = []
    for trainer, callback in zip(trainers, turns, strict=True):
        trainer.add_callback(callback)
        threads.append(threading.Thread(target=trainer.train))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return [callback.seconds for callback in turns], [callback.processor_seconds for callback in turns]


def trainer_of_job(words: list[str], *, own: bool = True, **more) -> GRPOTrainer:
    """A trainer on the job of recipes/l1_maxlen.yaml, without its hindsight start; `words` are flags.

    With `own`, what a run of rlred has: the logged adherence, and the parts that the flags ask for; else stock TRL.
    """
    common = ["--logging_steps", "1", "--save_strategy", "no", "--disable_tqdm", "true"]
    arguments, training, model_config = parse(ROOT / "recipes" / "l1_maxlen.yaml", [*common, *words])
    model, tokenizer = load_model(model_config, training)
    rewards = make_rewards(arguments, training)
    questions = load_questions("sums", limit=1024, seed=training.seed)
    rows = training_rows(
        questions,
        arguments.make_wording(),
        arguments.make_sampler(),
        num_rows=num_rows(training, len(questions)),
        budgets_per_question=arguments.budgets_per_question,
        seed=training.seed,
    )
    if own:
        rewards[0] = LogsAdherence(rewards[0], training.max_completion_length, tuple(stop_ids(model, tokenizer)))
    return make_trainer(
        arguments.make_parts() if own else [],
        model=model,
        reward_funcs=rewards,
        args=training,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=get_peft_config(model_config),
        **more,
    )
