"""A run on pictures from arguments to a measured adapter.

recipes/visual_sparsity.py, visionthink.py and fast_vision.py call `main`; they differ in their YAML.

In the output folder: the adapter and processor, visual.json, visual.md and visual.png (accuracy against visual tokens,
before and after), positions.png (where the selected tokens lie), measures/ (every rollout of every stage), run.json
(every setting) and trainer_state.json (the training curves).
"""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from peft import get_peft_model
from trl import GRPOConfig, ModelConfig

from rlred.checks.audit import audit_rewards, enforce, rollouts_per_step
from rlred.data.prompts import Prompts, tell_end
from rlred.evaluation.results import Result, to_markdown, write_result
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.stage_evaluation import measured_before
from rlred.evaluation.visual import POLICY, fixed_rows, optima, position_map, row_of, sweep_pictures
from rlred.evaluation.visual_report import visual
from rlred.files import read_record, write_json
from rlred.output import check_output_dir, checkpoint_of, prepare_output_dir
from rlred.rewards import ExactMatch, VisualSparsity, make_reward
from rlred.rewards.base import bind, correctness_of, declared, find
from rlred.runs.arguments import LoraModelConfig, RLConfig, option
from rlred.runs.audit_only import Audit
from rlred.runs.chassis import check_same_model, command, describe, load_model, load_outline, lora_of, watchers
from rlred.tokens import token_of
from rlred.training.adherence import LogsAdherence
from rlred.training.callbacks import CheckWrapper
from rlred.training.difficulty_kl import DifficultyKL
from rlred.training.imitation import CHEAPEST, check_mix, imitate, with_cheapest
from rlred.training.sft import SFTSettings
from rlred.training.trackers import guard_trackers
from rlred.training.trainer import ComposedGRPOTrainer, Part
from rlred.vision.budget_policy import VisualBudgetPolicy, VisualRolloutFunc
from rlred.vision.model import SparseVision
from rlred.vision.processor import sparse_processor
from rlred.vision.reduce import Reducer
from rlred.vision.rows import COLUMNS, load_rows, training_rows

logger = logging.getLogger(__name__)
LINEARS = r"(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


@dataclass
class VisionArguments:
    """Pictures, budget tokens, reward and evaluation. Fields that say "YAML/JSON" are JSON on the command line."""

    questions: str = option("pictures", "Rows with images: 'pictures' (embedded), a local file, or a Hub id.")
    questions_split: str = option("train", "Split of the training rows.")
    family_mix: list[str] = option([], "Families of the embedded questions, in turn; a name may stand twice.")
    square_sides: list[int] = option(
        [], "Sides of the embedded squares, pixels; several: what suffices is in the picture."
    )
    budget_tokens: str = option({}, "Tokens and their keep ratios, as YAML/JSON; each is one token of the vocabulary.")
    thumbnail: float | None = option(None, "Open the prompt with the picture at this keep ratio.")
    on_request: bool = option(False, "The thumbnail can be answered; a budget token asks for more (VisionThink).")
    suppress_tokens: list[str] = option([], "Tokens that are never sampled: a model's other budget tokens, say.")
    start_steps: int = option(0, "Steps of imitation before GRPO, so that each choice is about as likely (0: none).")
    start_mix: list[str] = option([], "Its choices in turn: direct, budget tokens, cheapest (that answers the row).")
    start_learning_rate: float = option(2e-3, "Its learning rate.")
    score: str = option("maxmin", "Score of rlred.vision.reduce: maxmin, similarity, attention, norm, entropy, random.")
    strategy: str = option("prune", "prune, package, merge, pool or downsample.")
    instruction: str = option("", "Text after each question: how to choose a budget token, how to answer.")
    system_prompt: str | None = option(None, "System prompt of every question.")
    end_of_thinking: str | None = option(
        None, "Text that ends the thinking; '' for a model that has none (default: as the tokenizer knows it)."
    )
    ladder: bool = option(False, "Deal the budget tokens out instead, and do not train them: the control.")
    reward: str = option({"name": "visual_sparsity"}, "Reward name, or a mapping with parameters, as YAML/JSON.")
    beta_solved: float | None = option(
        None, "KL weight of a group that is always correct, beta being that of one that never is (FAST); empty: beta."
    )
    max_answer: int = option(16, "Tokens of an answer at most.")
    evaluate: bool = option(True, "Measure every choice and the policy before and after.")
    eval_questions: str | None = option(None, "Held-out rows (default: the training source's eval_split).")
    eval_split: str = option("test", "Split of the held-out rows.")
    num_eval_questions: int = option(600, "Held-out rows.")

    def __post_init__(self):
        for name in ("budget_tokens", "reward"):
            value = getattr(self, name)
            if isinstance(value, str) and value.lstrip().startswith("{"):
                try:
                    setattr(self, name, json.loads(value))
                except json.JSONDecodeError as error:
                    raise ValueError(f"{name}: not JSON: {error}") from None
        if not isinstance(self.budget_tokens, dict):
            raise ValueError(f"budget_tokens must be a mapping from tokens to keep ratios, got {self.budget_tokens!r}")
        for name in ("max_answer", "num_eval_questions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.start_steps < 0:
            raise ValueError(f"start_steps must be 0 or more, got {self.start_steps}")
        if not self.start_learning_rate > 0:
            raise ValueError(f"start_learning_rate must be above 0, got {self.start_learning_rate}")
        Reducer(self.score, self.strategy)

    def make_start(self) -> SFTSettings:
        """How long and how fast the start by imitation trains."""
        return SFTSettings(
            max_steps=self.start_steps,
            batch_size=24,
            learning_rate=self.start_learning_rate,
            schedule="constant",
            warmup_steps=0,
            in_order=True,
            save_steps=20,
        )

    def make_parts(self) -> list[Part]:
        """What the run's method changes in a GRPO step."""
        return [] if self.beta_solved is None else [DifficultyKL(self.beta_solved)]


KINDS = (VisionArguments, RLConfig, LoraModelConfig)


def check(arguments: VisionArguments, training: GRPOConfig, model_config: ModelConfig) -> None:
    """Raises `ValueError` for settings that cannot work; warns of one that does not learn."""
    if training.use_vllm:
        raise ValueError(
            "use_vllm=True: vLLM lays out image tokens itself and cannot leave any out; set use_vllm: false, or shrink "
            "the pictures"
        )
    for part in arguments.make_parts():
        part.check(training, [part])
    if arguments.start_steps and not model_config.use_peft:
        raise ValueError("use_peft=False: the start by imitation trains an adapter; set use_peft to true")
    if training.scale_rewards not in ("none", False):
        logger.warning(
            "scale_rewards=%r: divided by the group's std, a small bonus is as strong as the answer, and the policy "
            "learns to take the fewest tokens for everything; set scale_rewards: none",
            training.scale_rewards,
        )
    if training.max_steps < 1:
        raise ValueError(f"max_steps must be 1 or more, got {training.max_steps}")
    if arguments.ladder and arguments.on_request:
        raise ValueError(
            "ladder=True: deals budget tokens out, and with on_request there is none to deal; leave one of them out"
        )
    tokens = len(arguments.budget_tokens)
    if arguments.ladder and training.num_generations < 2 * tokens:
        raise ValueError(
            f"num_generations must be {2 * tokens} or more: 2 rollouts of each of {tokens} assigned budget tokens"
        )


def check_rewards(rewards: list, training: GRPOConfig) -> None:
    """Raises `ValueError` for rewards whose groups would straddle processes, or whose columns no row has."""
    enforce(audit_rewards(training, rewards, {"free"}))
    for reward in map(declared, rewards):
        missing = [name for name in reward.needs if name not in {*COLUMNS, *VisualRolloutFunc.columns}]
        if missing:
            raise ValueError(
                f"reward: {reward.__name__} needs the column {missing[0]!r}, and rows with pictures have "
                f"{', '.join((*COLUMNS, *VisualRolloutFunc.columns))}; choose a reward that goes without"
            )


def make_rewards(arguments: VisionArguments, training: GRPOConfig, parts: list[Part]) -> list:
    """The reward that is trained on, and correctness logged beside it where a part reads it."""
    reward = bind(make_reward(arguments.reward), training.num_generations, ())
    rewards = [reward]
    if parts and not declared(reward).grades:
        rewards, training.reward_weights = [reward, correctness_of(reward, ExactMatch())], [1.0, 0.0]
    check_rewards(rewards, training)
    return rewards


def audit_only(
    checks: Audit, arguments: VisionArguments, training: GRPOConfig, model_config: ModelConfig, default_output: Path
) -> None:
    """The checks of `run` in its order, and nothing that samples or needs weights."""
    checks.step("output folder", check_output_dir, training, default_output)
    checks.step("devices and steps", check, arguments, training, model_config)
    checks.step("rewards", make_rewards, arguments, training, arguments.make_parts())
    outline = checks.step("processor", load_outline, model_config, training, True)
    checks.step("budget tokens", lambda own: make_policy(arguments, training, *own), outline)
    rows = checks.step("questions", questions_of, arguments, training)
    held_out = checks.step("held-out questions", held_out_of, arguments)
    checks.step("held-out questions", lambda own, other: check_held_out(own, other.get("test", [])), rows, held_out)


def run(
    arguments: VisionArguments, training: GRPOConfig, model_config: ModelConfig, default_output: Path
) -> Result | None:
    """Trains a policy and returns what was measured (None with evaluate=False)."""
    start = time.monotonic()
    check(arguments, training, model_config)
    parts = arguments.make_parts()
    rewards = make_rewards(arguments, training, parts)
    model, processor = load_model(model_config, training, pictures=True)
    policy = make_policy(arguments, training, model, processor)
    rewards = [tell_end(reward, policy.prompts.end, policy.tokenizer) for reward in rewards]
    reward = rewards[0]
    correctness = correctness_of(reward, tell_end(ExactMatch(), policy.prompts.end, policy.tokenizer))
    rows = questions_of(arguments, training)
    held_out = held_out_of(arguments)
    check_held_out(rows, held_out.get("test", []))
    output = prepare_output_dir(training, default_output)
    check_same_model(output, model, model_config)
    evaluation = VisualStageEvaluation(arguments, policy, held_out, correctness, training.seed, output)
    if PartialState().is_main_process:
        write_json(output / "run.json", describe(default_output.name, arguments, training, model_config, model))

    evaluation.measure("baseline", model)
    labels = {"model": model_config.model_name_or_path, "adapter": str(output), "seed": training.seed}
    labels["visual_weight"] = next((part.visual_weight for part in find(reward, VisualSparsity)), 0.0)
    before = evaluation.result(labels)
    if before and PartialState().is_main_process:  # where all families want the same choice there is nothing to learn
        logger.info("before training\n%s", to_markdown(before))
    peft_config = lora_of(model_config, rf".*(language_model|text_model).*\.{LINEARS}")
    if arguments.start_steps:
        torch.manual_seed(training.seed)
        model, peft_config = get_peft_model(model, peft_config), None
        start_by_imitation(model, policy, rows, correctness, arguments, training, output / "start")
        evaluation.measure("started", model)
    rewards[0] = LogsAdherence(reward, training.max_completion_length, (), policy.tokenizer, policy.prompts.end)
    trainer = ComposedGRPOTrainer(
        parts=parts,
        model=model,
        reward_funcs=rewards,
        args=training,
        train_dataset=training_rows(rows, policy.images_per_row),
        processing_class=policy.processor,
        rollout_func=VisualRolloutFunc(policy, assigned=arguments.ladder, max_answer=arguments.max_answer),
        peft_config=peft_config,
        callbacks=watchers(output, training),
    )
    guard_trackers(trainer)
    trainer.add_callback(CheckWrapper(trainer))
    trainer.train(resume_from_checkpoint=checkpoint_of(training))
    trainer.save_model(str(output))
    trainer.save_state()
    trained, steps = trainer.accelerator.unwrap_model(trainer.model), trainer.state.global_step
    evaluation.measure("trained", trained, steps)
    spent = {"steps": steps, "minutes": round((time.monotonic() - start) / 60, 1)}
    result = evaluation.result(labels, spent, evaluation.positions(trained, arguments.strategy))
    if result and PartialState().is_main_process:
        write_result(result, output)
    return result


def questions_of(arguments: VisionArguments, training: GRPOConfig) -> list[dict]:
    """The questions of the whole run, as many as its steps take."""
    return load_rows(
        arguments.questions,
        split=arguments.questions_split,
        limit=rollouts_per_step(training) // training.num_generations * training.max_steps,
        seed=training.seed,
        mix=arguments.family_mix,
        instruction=arguments.instruction,
        square_sides=arguments.square_sides,
    )


def make_policy(arguments: VisionArguments, training: GRPOConfig, model, processor) -> VisualBudgetPolicy:
    """The policy that says how many visual tokens the model, which loses the others from now on, sees."""
    settings = {"chat_template_kwargs": training.chat_template_kwargs, "end_of_thinking": arguments.end_of_thinking}
    prompts = Prompts(system_prompt=arguments.system_prompt, **settings)
    policy = VisualBudgetPolicy(
        sparse_processor(processor), arguments.budget_tokens, arguments.thumbnail, arguments.on_request, prompts
    )
    SparseVision(model, Reducer(arguments.score, arguments.strategy), images_per_row=policy.images_per_row)
    suppressed = [token_of(policy.tokenizer, text, field="suppress_tokens") for text in arguments.suppress_tokens]
    model.generation_config.suppress_tokens += suppressed
    if arguments.start_steps:
        check_mix(policy, arguments.start_mix)
    return policy


def start_by_imitation(
    model,
    policy: VisualBudgetPolicy,
    rows: list[dict],
    correctness,
    arguments: VisionArguments,
    training: GRPOConfig,
    folder: Path,
) -> None:
    """Trains the model's adapter by imitation and keeps it in `folder`; one that is there is loaded instead."""
    if (folder / "adapter_model.safetensors").exists():
        model.load_adapter(folder, adapter_name="default", is_trainable=True)
        return
    settings = arguments.make_start()
    if CHEAPEST in arguments.start_mix:
        folder.mkdir(parents=True, exist_ok=True)
        sampling = Sampling(arguments.max_answer, batch_size=128, seed=training.seed)
        some = rows[: settings.max_steps * settings.batch_size]  # as many as the start can learn from
        with PartialState().main_process_first():  # the others read its answers, and so have its labels
            rows = with_cheapest(policy, model, some, sampling, correctness, folder)
    state = imitate(model, policy, rows, arguments.start_mix, settings, folder, training)
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    if losses:
        logger.info("imitation: from %.2f to %.2f nats per token", losses[0], losses[-1])


def check_held_out(rows: list[dict], held_out: list[dict]) -> None:
    """Raises `ValueError` where a held-out row, question and picture, is a training row too."""

    def key(row: dict) -> tuple[str, bytes]:
        return row["question"], row["image"].tobytes()

    trained = {key(row) for row in rows}
    shared = sum(key(row) in trained for row in held_out)
    if shared:
        raise ValueError(
            f"eval_questions: {shared} of {len(held_out)} held-out rows are training rows too; name another file in "
            "eval_questions or another eval_split"
        )


def held_out_of(arguments: VisionArguments) -> dict[str, list[dict]]:
    """The held-out rows by their wordings: other scenes than in training, and of the embedded task in both wordings."""
    source = arguments.eval_questions or arguments.questions
    wordings = ("test", "train") if source == "pictures" else ("test",)
    return {
        name: load_rows(
            source,
            split=arguments.eval_split,
            limit=arguments.num_eval_questions,
            mix=arguments.family_mix,
            wordings=name,
            instruction=arguments.instruction,
            square_sides=arguments.square_sides,
        )
        for name in (wordings if arguments.evaluate else ())
    }


class VisualStageEvaluation:
    """The same held-out rows, choices and seed for every stage of a run; nothing is measured without rows."""

    def __init__(self, arguments, policy: VisualBudgetPolicy, rows: dict[str, list[dict]], correctness, seed, output):
        self.policy, self.rows, self.correctness, self.folder = policy, rows, correctness, output / "measures"
        self.sampling = Sampling(arguments.max_answer, seed=seed)
        told = ("questions", "eval_questions", "eval_split", "num_eval_questions", "family_mix", "instruction")
        told += ("square_sides", "budget_tokens", "thumbnail", "on_request", "score", "strategy", "suppress_tokens")
        self.asked = {name: getattr(arguments, name) for name in (*told, "max_answer")}
        self.asked |= {"reward": arguments.reward, "seed": seed, **policy.prompts.described()}
        self.stages: list[str] = []  # in the order in which they are measured

    def measure(self, stage: str, model, step: int = 0) -> None:
        """Measures `model`, which has made `step` steps, once: the policy, and of the base every choice for all rows.

        What an earlier start of this run has measured is not measured again, and a stage that was interrupted goes on,
        unless the run has gone on since or its evaluation was changed: then the earlier files are moved aside.
        """
        state, path = PartialState(), self.folder / f"{stage}.json"
        if not self.rows:
            return
        self.stages.append(stage)
        # Every process has the whole model; the main one measures while the others wait for it.
        if state.is_main_process and not measured_before(path, {"step": step, **self.asked}):
            was_training, name = model.training, "base" if stage == "baseline" else stage
            model.eval()
            measured = {}
            if stage == "baseline":
                labels = {"stage": name, "wordings": "test", "correctness": self.correctness}
                own = path.with_suffix(".fixed")
                measured["fixed"] = fixed_rows(self.policy, model, self.rows["test"], self.sampling, path=own, **labels)
            measured[POLICY] = self.policy_rows(name, model, path.with_suffix(""))
            model.train(was_training)
            write_json(path, measured)
        state.wait_for_everyone()

    def policy_rows(self, stage: str, model, path: Path) -> list[dict]:
        """The policy, greedy and sampled (the answers greedy both times), in each set of wordings."""
        found = []
        for wordings, rows in self.rows.items():
            for decoding, temperature in (("greedy", 0.0), ("sampled", 1.0)):
                own = path.with_name(f"{path.name}.{decoding}-{wordings}.completions.jsonl")
                sampling = self.sampling.at(temperature=temperature)
                settings = {"correctness": self.correctness, "path": own}
                outcomes = sweep_pictures(self.policy, model, rows, sampling, **settings)
                found.append(row_of(outcomes, stage=stage, choice=POLICY, decoding=decoding, wordings=wordings))
        return found

    def positions(self, model, strategy: str) -> list[list[float]] | None:
        """Where the selected tokens lie at the smallest budget; None where the reducer selects none."""
        tokens = self.policy.budget_tokens
        if not (self.rows and tokens and strategy in ("prune", "package", "merge")):
            return None
        return position_map(self.policy, model.eval(), self.rows["test"], min(tokens, key=tokens.get))

    def result(self, labels: dict, cost: dict | None = None, positions: list | None = None) -> Result | None:
        """The result of the stages that were measured so far; None where none is."""
        if not self.rows:
            return None
        measured = [read_record(self.folder / f"{stage}.json") for stage in self.stages]
        fixed, policy = measured[0]["fixed"], [row for one in measured for row in one[POLICY]]
        labels = {**labels, "n_questions": len(self.rows["test"]), "wordings": "test"}
        weight = labels["visual_weight"]
        details = {"optima": optima(fixed, weight) if weight else {}, "positions": positions}
        return visual(labels, fixed, policy, details=details, cost=cost)


def main(recipe: Path) -> int:
    """The command line of a recipe: its YAML, then flags; a wrong value is one clear line and exit status 2."""
    return command(recipe, run, KINDS, "visual.md", audit_only)
