r"""A policy that learns for which questions it need not think (AdaptThink, 2505.13417; Thinkless, 2505.13379).

AdaptThink, the default: half of each group's rollouts begin with `</think>`, half are kept from it, weighted back to
the policy by importance; r = c - A_ref + delta [no thinking], and r is the advantage. The ratio is the released code's,
exp of a completion's mean log-ratio. Thinkless: its reward, the policy's own choice, and a loss of its own for the
token that decides. Differs from AdaptThink: the thinking half begins as the policy likes, not with one fixed word.
The embedded base, which can do both, is made first (rlred/tiny/makers/tiny_hybrid.py), once.

CPU, minutes    accelerate launch recipes/think_or_not.py
Thinkless       accelerate launch recipes/think_or_not.py --config recipes/think_or_not_thinkless.yaml
one GPU         accelerate launch recipes/think_or_not.py --config recipes/think_or_not_paper.yaml
eight GPUs      accelerate launch --config_file accelerate_configs/zero2.yaml recipes/think_or_not.py \
                    --config recipes/think_or_not_paper.yaml
resume          add --resume_from_checkpoint true
"""

import sys
from pathlib import Path

from accelerate import PartialState

from rlred.runs.arguments import KINDS
from rlred.runs.chassis import command
from rlred.runs.grpo import audit_only, run
from rlred.tiny import TINY_REASONER
from rlred.tiny.makers.tiny_hybrid import TINY_HYBRID, make_hybrid


def run_from_hybrid(arguments, training, model_config, default_output: Path) -> dict:
    """A length-control run; the tiny hybrid model, where it is asked for, is made in outputs/ if it is not there."""
    if model_config.model_name_or_path == TINY_HYBRID:
        with PartialState().main_process_first():
            model_config.model_name_or_path = str(make_hybrid(Path("outputs") / TINY_HYBRID))
    return run(arguments, training, model_config, default_output)


def audit_of_hybrid(checks, arguments, training, model_config, default_output: Path) -> None:
    """The audit of such a run; it reads the base of a tiny hybrid model, which has the same shape and tokenizer."""
    if model_config.model_name_or_path == TINY_HYBRID:
        model_config.model_name_or_path = TINY_REASONER
    audit_only(checks, arguments, training, model_config, default_output)


if __name__ == "__main__":
    sys.exit(command(Path(__file__), run_from_hybrid, KINDS, "adherence.md", audit_of_hybrid))
