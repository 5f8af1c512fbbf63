"""Rewards that are ready to be named where only a name can be given, as on TRL's command line:

    trl grpo --reward_funcs rlred.rewards.presets.l1_max rlred.rewards.presets.correctness ...

Each line says its constants and, if they are more than `solution`, the columns that its rows need. The constants are
those of papers that train models of 1.5 to 7 billion parameters on answers of thousands of tokens: choose your own for
other lengths (`from rlred.rewards import MaxLength`). Rewards whose constants no paper fixes, or whose columns only a
rollout of rlred brings, have no line here. Rewards that compare a completion with its group need whole groups on each
process: per_device_train_batch_size * steps_per_generation has to be a multiple of num_generations.
"""

from .adapt_think import AdaptThink
from .by_mode import ByMode
from .correctness import Correctness
from .cosine_length import CosineLength
from .difficulty_length import DifficultyLength
from .duplicated_reasoning import DuplicatedReasoning
from .effort_length import EffortLength
from .exact_length import ExactLength
from .exact_match import ExactMatch
from .format_diversity import FormatDiversity
from .gr3 import Gr3
from .group_sigmoid import GroupSigmoid
from .grpo_lead import GrpoLead
from .kimi_length import KimiLength
from .laconic import Laconic
from .lead import Lead
from .length_efficiency import LengthEfficiency
from .length_mask import LengthMask
from .max_length import MaxLength
from .shortest_correct import ShortestCorrect
from .slack_length import SlackLength
from .soft_overlong import SoftOverlong
from .solve_rate_penalty import SolveRatePenalty
from .thinkless import Thinkless
from .truncation import Truncation
from .turn_cost import TurnCost
from .uncertainty_budget import UncertaintyBudget

# The grade alone: 1 or 0 by math-verify; or by the words of the answer.
correctness = Correctness()
exact_match = ExactMatch()

# L1-Exact (2503.04697, eq 1): alpha 3e-4 per token. The released code: 1/3000. Column: budget.
l1_exact = ExactLength.preset("paper")
l1_exact_released = ExactLength.preset("released")

# L1-Max (2503.04697, eq 2): delta 0.5, and the released code's alpha of 1e-3. The paper states 3e-4. Column: budget.
l1_max = MaxLength.preset("released")
l1_max_paper = MaxLength.preset("paper")

# L1-Max's dual objective (section 3.2): l1_exact on exact rows, l1_max on max rows. Columns: budget, mode.
l1_by_mode = ByMode()

# Arora & Zanette (2502.04463): alpha 0.1, of 0.05 to 0.4. Compares within the group.
group_sigmoid = GroupSigmoid(alpha=0.1)

# Kimi k1.5 (2501.12599): weight 0.2, which is ours; the paper states none. Compares within the group.
kimi_length = KimiLength(weight=0.2)

# ShorterBetter (2504.21370): 2 for a correct answer, alpha 0.001 per token. Compares within the group.
shortest_correct = ShortestCorrect(correct=2.0, alpha=0.001)

# ALP (2506.05256): alpha 1e-4 per token, which is ours. Compares within the group.
solve_rate_penalty = SolveRatePenalty(alpha=1e-4)

# Short-RL (2505.12284): slack of 100 tokens, weight 1, tolerance 0.05. Compares within the group; log correctness too.
slack_length = SlackLength(slack=100, weight=1.0, tolerance=0.05)

# FAST (2504.18458): weight 0.5, quantile 0.8; the floor of -0.5 is ours. Compares within the group and the batch.
difficulty_length = DifficultyLength(weight=0.5, quantile=0.8)

# ARM (2505.20258): the four formats of the paper. Compares within the group.
format_diversity = FormatDiversity()

# Demystifying Long CoT (2502.03373): correct 2 to 1, incorrect -10 to 0, exceeding -10, at a maximum of 4,096 tokens.
cosine_length = CosineLength.preset("paper", max_length=4096)

# DAPO (2503.14476, eq 13): nothing up to 16,384 tokens, then down to -1 at 20,480.
soft_overlong = SoftOverlong(max_length=20480, cache=4096)

# ThinkPrune (2504.01296): a limit of 4,000 tokens, 3,000 from step 180 and 2,000 from step 360.
thinkprune = Truncation(stages=((0, 4000), (180, 3000), (360, 2000)))

# O1-Pruner: eq 10 of 2505.18227, weight 2. The released code (2501.12570): weight 5, clipped to [-2, 4].
# Columns: reference_length, reference_accuracy (`rlred reference` makes them).
length_efficiency = LengthEfficiency.preset("paper")
o1_pruner = LengthEfficiency.preset("released")

# AdaptThink (2505.13417): delta 0.05. Column: reference_accuracy.
adapt_think = AdaptThink(delta=0.05)

# Thinkless (2505.13379): 0.5 for a correct answer with thinking, -1 for an incorrect one.
thinkless = Thinkless(thinking=0.5, incorrect=-1.0)

# PixelThink (2505.23727): span 500, budgets 96 and 256, stretch 25. Column: difficulty, 0 to 10.
uncertainty_budget = UncertaintyBudget()

# GR3 (2603.10535): alpha 0.33, that of an implementation. Compares within the group.
gr3 = Gr3(alpha=0.33)

# GRPO-LEAD (2504.09696): alpha 0.05, -1 for an incorrect answer. Compares within the group.
grpo_lead = GrpoLead(alpha=0.05, incorrect=-1.0)

# LEAD (2605.09806): lengths of 1,000 to 8,000 tokens, momentum 0.95, floor 0.3. Compares within the group; set
# scale_rewards to batch, and log every step.
lead = Lead(low=1000, high=8000)

# LACONIC (2602.14468): a budget of 1,500 tokens and a rate of 0.002, for 1.5 billion parameters; log every step.
laconic = Laconic(budget=1500, rate=0.002)

# NeMo-RL: nothing for an answer that is its own thinking.
duplicated_reasoning = DuplicatedReasoning()

# prime-rl: 0.25 for tokens, 0.1 for input, 0.1 for turns. Compares within the group.
turn_cost = TurnCost(output=0.25, input=0.1, turns=0.1)

# The Art of Efficient Reasoning (2602.20945): 4,000 tokens, long correct answers masked. Name no reward beside it.
length_mask = LengthMask(limit=4000, masked=("correct_long",))

# e1 (2510.27042): correct within effort * the question's mean length. Compares within the question, whose efforts stand
# side by side. Columns: effort; question_id where one question has several prompts.
effort_e1 = EffortLength.preset("e1")

# Kimi K3 (2607.24653): -1 beyond effort * the reference's mean correct length. Columns: effort,
# reference_correct_lengths (`rlred reference` makes it).
effort_kimi_k3 = EffortLength.preset("kimi_k3")
