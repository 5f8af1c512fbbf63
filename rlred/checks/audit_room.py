"""The audit of room: whether prompts and the completions of a run's sweeps fit into the model's context and vLLM's."""

from collections.abc import Iterator, Sequence

from trl import GRPOConfig

from rlred.checks.findings import Finding, error, warning


def audit_room(
    longest: int, context: int | None, training: GRPOConfig, cap: int, budgets: Sequence[int]
) -> Iterator[Finding]:
    """Findings about prompts of up to `longest` tokens beside what is generated.

    `context` is the model's (None: unknown), `cap` the most tokens of a completion in a sweep of these `budgets`, 0
    where nothing is measured.
    """
    if context is not None and cap > training.max_completion_length and longest + cap > context:
        most = max(1, (context - longest) // 2)
        advice = (
            f"the sweep lets a completion have twice the largest, {cap} tokens; with prompts of up to {longest} that "
            f"exceeds the model's context of {context}; ask for {most} at most"
        )
        # vLLM refuses such a prompt; transformers writes on, by positions that the model has never learned.
        yield (error if training.use_vllm else warning)("eval_budgets", list(budgets), advice)
    room, needed = training.vllm_max_model_length, longest + max(cap, training.max_completion_length)
    if training.use_vllm and training.vllm_mode == "colocate" and room is not None and needed > room:
        # rlred/evaluation/vllm.py refuses them; vLLM itself would end a row early and say that it was too long.
        of = f"completions of up to {needed - longest}" + (" in the sweep" if needed - longest == cap else "")
        advice = f"prompts of up to {longest} tokens and {of} need {needed}; set it to that or more, or leave it out"
        yield error("vllm_max_model_length", room, advice)
