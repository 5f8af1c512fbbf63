r"""Low resolution first, high resolution on request (VisionThink, 2507.13348).

    <user> [16 image tokens] what color is the dot ? <assistant> <look-1> [64 image tokens] red <eos>

The prompt holds the picture with a quarter of its tokens. The policy answers from that, or asks for the whole picture,
which is appended: a request costs (low + high) / high = 125 % of the full picture's tokens, a direct answer 25 %.
Reward: correct, less 0.1 for a correct answer that asked where at least a fifth of the group's correct answers did not,
and for one that did not ask where fewer did. The released code never lifts the first penalty (`lift: false`).

Differs from the paper: the request is one token, and the whole picture follows it in the same turn (TRL 1.16 has tools
that return images, and refuses them for the chat templates of Qwen2.5-VL and LLaVA, which have no tool turns); exact
match or math-verify instead of a judge, and no format reward; LoRA on the language model; and with a model that does
not ask yet, as the embedded VLM, a short start by imitation (`start_steps`), which the paper found to hurt and which
has no part in when to ask. Low resolution is a picture shrunk before the tower in LLaVA (`downsample`), and features
pooled 2 x 2 behind it in Qwen2.5-VL (`pool`).

CPU, minutes    python recipes/visionthink.py
one GPU         accelerate launch recipes/visionthink.py --config recipes/visionthink_qwen2.5_vl_7b.yaml
"""

import sys
from pathlib import Path

from rlred.runs.visual import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))
