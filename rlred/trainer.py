"""What TRL's GRPOTrainer lacks for length control: the adherence of every step's rollouts, in every tracker.

Everything else is TRL's: rewards, advantages, loss, LoRA, vLLM, logging, checkpoints.
"""

from accelerate.utils import gather_object
from trl import GRPOTrainer

from rewards import Length
from rlred.evaluation.measures import step_metrics
from rlred.prompts import decode, found_end
from rlred.stopping import check_stopping, decided_at, stopping_at


class BudgetGRPOTrainer(GRPOTrainer):
    """`trl.GRPOTrainer` whose logs also say how well the rollouts kept their budgets.

    Takes GRPOTrainer's arguments; `length`: what counts as length (the whole completion by default);
    `end_of_thinking`: the text that rewards look for (default: as the tokenizer knows it); and `stop_decided`: end each
    rollout where its reward is decided (rlred/stopping.py). Rows carry `budget` and `mode`; `question_id` lets the rank
    correlation compare one question's budgets with each other. The metrics are those of
    `rlred.evaluation.measures.step_metrics`, over the rollouts of all processes.
    """

    _tag_names = ["trl", "grpo", "rlred"]

    def __init__(
        self,
        *args,
        length: Length | None = None,
        end_of_thinking: str | None = None,
        stop_decided: bool = False,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.length = length or Length()
        self.end_of_thinking = found_end(self._tokenizer) if end_of_thinking is None else end_of_thinking
        self.stop_decided = stop_decided
        self._limits: list[int] = []  # of this process's rows in the generation batch, with stop_decided
        if stop_decided:
            check_stopping(self.args)

    def _generate_and_score_completions(self, inputs):
        if self.stop_decided:
            weights = self.reward_weights.tolist()
            rows = [{**row, "trainer_state": self.state} for row in inputs]
            self._limits = [decided_at(self.reward_funcs, weights, row, self.max_completion_length) for row in rows]
        return super()._generate_and_score_completions(inputs)

    def _generate_single_turn(self, *args, **kwargs):
        if not self.stop_decided:
            return super()._generate_single_turn(*args, **kwargs)
        engine = self.vllm_generation.llm if self.use_vllm else self.accelerator.unwrap_model(self.model_wrapped)
        with stopping_at(engine, self._limits):
            completion_ids, logprobs = super()._generate_single_turn(*args, **kwargs)
        # transformers pads a row that has stopped; to TRL that is text, unless an end of sequence comes before it.
        return [ids[:limit] for ids, limit in zip(completion_ids, self._limits, strict=True)], logprobs

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        self._restore_thinking(completions, completion_ids_list)
        lengths = [self.length(ids) for ids in completion_ids_list]
        if self.stop_decided:
            cap = self.max_completion_length
            stopped = [
                len(ids) == limit < cap and ids[-1] not in self.eos_token_ids
                for ids, limit in zip(completion_ids_list, self._limits, strict=True)
            ]
            # As long as it could have become: lengths cut at the budget would look like obedience.
            lengths = [cap if cut else length for cut, length in zip(stopped, lengths, strict=True)]
            self._log_metric("adherence/stopped", sum(stopped) / len(stopped))
        outcomes = [
            {
                "question_id": row.get("question_id"),
                "mode": row.get("mode"),
                "budget": row.get("budget"),
                "length": length,
            }
            for row, length in zip(inputs, lengths, strict=True)
        ]
        # Every process logs the figures of all rollouts, so that TRL's averaging over processes keeps them as they are.
        for name, value in step_metrics(gather_object(outcomes)).items():
            self._log_metric(name, value)
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def _restore_thinking(self, completions: list, completion_ids_list: list[list[int]]) -> None:
        """Writes the completions' own text, thinking and its end included, into what TRL has decoded, in place.

        TRL leaves special tokens out, and `</think>` can be one; or it takes the thinking apart, where the tokenizer
        has a response template. Rewards and the completions table are to see what every measure sees.
        """
        if self.tools:  # turns of several speakers, whose texts are not one completion
            return
        texts = decode(self._tokenizer, completion_ids_list, self.end_of_thinking)
        for number, (completion, text) in enumerate(zip(completions, texts, strict=True)):
            whole = text if isinstance(completion, str) else [{"role": "assistant", "content": text}]
            completions[number] = whole
