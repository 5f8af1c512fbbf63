import logging
from dataclasses import dataclass

from rlred.data.budgets import EFFORTS, MODES, effort_of
from rlred.data.models import Loading
from rlred.data.sources import PromptSettings
from rlred.flags import option, required

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Generate(Loading, PromptSettings):
    """Ask one question at several budgets and watch.

    rlred generate "3+7+2+9=?" --adapter outputs/l1_maxlen --budgets 16 32 64
    rlred generate "3+7+2+9=?" --adapter outputs/l1_exact --mode exact --budgets 24 48 --temperature 0
    """

    question: str = required("The question.", positional=True)
    model: str | None = option(None, "Folder or Hub id (default: the adapter's base, or tiny_reasoner).")
    adapter: str | None = option(None, "Folder or Hub id of a PEFT adapter.")
    budgets: list[int] = option([16, 32, 64], "Tokens to ask for.", metavar="TOKENS")
    efforts: list[str] = option([], "Efforts in place of budgets: low, medium, high or numbers.", metavar="EFFORT")
    mode: str = option("max", "How a length is asked for", choices=MODES)
    wording: str | None = option(None, "Preset, or templates as JSON (default: the adapter's, or l1).")
    max_completion_length: int | None = option(None, "Default: twice the largest budget.", metavar="TOKENS")
    temperature: float = option(1.0, "0 is greedy.", metavar="T")
    seed: int = option(0, "Seed of the sampling.", metavar="N")

    def __post_init__(self):
        super().__post_init__()
        if not self.question.strip():
            raise ValueError("QUESTION is empty; give the text of a question")
        if self.max_completion_length is not None and self.max_completion_length < 1:
            raise ValueError(f"--max_completion_length must be 1 or more, got {self.max_completion_length}")
        if min(self.budgets) < 1:
            raise ValueError(f"--budgets must be 1 or more, got {min(self.budgets)}")
        try:
            efforts = [effort_of(effort) for effort in self.efforts or (EFFORTS if self.mode == "effort" else [])]
        except ValueError as problem:
            raise ValueError(f"--efforts: {problem}") from None
        object.__setattr__(self, "efforts", efforts)
        if self.max_completion_length is None and (efforts or self.mode == "free"):
            raise ValueError(
                f"--max_completion_length is missing; --mode {self.mode} asks for no number of tokens, so give a cap"
            )
        if self.temperature < 0:
            raise ValueError(f"--temperature must be 0 or more, got {self.temperature}")

    def run(self) -> None:
        """Prints what the model thinks of the question at each budget, and how long."""
        from rlred.data.adapters import on_another_base
        from rlred.data.models import load_model
        from rlred.data.prompts import decode
        from rlred.evaluation.evaluate import candidates_of, check_positions
        from rlred.evaluation.sampling import Sampling
        from rlred.evaluation.sweep import complete, stop_ids

        models, adapters = ([name] if name else [] for name in (self.model, self.adapter))
        candidate = candidates_of(models, adapters, self.wording, self.given())[-1]
        mode = "effort" if self.efforts else self.mode
        budgets = self.efforts or ([None] if mode == "free" else self.budgets)
        model, tokenizer = load_model(candidate.model, candidate.adapter, Loading.of(self))
        check_positions(model, [] if self.efforts or mode == "free" else self.budgets, candidate.model)
        if told := on_another_base(candidate.adapter, candidate.model, model, Loading.of(self), "asked"):
            logger.warning("%s", told)
        prompts, row = candidate.prompts.fitted(tokenizer), {"question": self.question}
        completions = complete(
            model,
            tokenizer,
            [prompts.asked(prompts.turns(row, budget, mode)) for budget in budgets],
            Sampling(self.max_completion_length or 2 * max(self.budgets), self.temperature, seed=self.seed),
        )
        stops = stop_ids(model, tokenizer)
        texts = decode(tokenizer, completions, prompts.end, prompts.markers)
        for budget, ids, text in zip(budgets, completions, texts, strict=True):
            asked = "free" if budget is None else f"{mode} {budget}"
            cut = "" if ids and ids[-1] in stops else ", cut there"
            print(f"\n[{asked}: {len(ids)} tokens{cut}]\n{text}")
