"""What TRL's GRPOTrainer lacks for length control: the adherence of every step's rollouts, in every tracker.

Everything else is TRL's: rewards, advantages, loss, LoRA, vLLM, logging, checkpoints.
"""

from accelerate.utils import gather_object
from trl import GRPOTrainer

from rewards import Length
from rlred.evaluation.measures import step_metrics


class BudgetGRPOTrainer(GRPOTrainer):
    """`trl.GRPOTrainer` whose logs also say how well the rollouts kept their budgets.

    Takes GRPOTrainer's arguments, and `length`: what counts as length (the whole completion by default). Rows carry
    `budget` and `mode`; `question_id` lets the rank correlation compare one question's budgets with each other. The
    metrics are those of `rlred.evaluation.measures.step_metrics`, over the rollouts of all processes.
    """

    _tag_names = ["trl", "grpo", "rlred"]

    def __init__(self, *args, length: Length | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.length = length or Length()

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        outcomes = [
            {
                "question_id": row.get("question_id"),
                "mode": row.get("mode"),
                "budget": row.get("budget"),
                "length": self.length(ids),
            }
            for row, ids in zip(inputs, completion_ids_list, strict=True)
        ]
        # Every process logs the figures of all rollouts, so that TRL's averaging over processes keeps them as they are.
        for name, value in step_metrics(gather_object(outcomes)).items():
            self._log_metric(name, value)
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
