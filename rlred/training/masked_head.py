"""The language-model head on kept positions only: logits of the tokens that carry a loss, and of no others.

With a vocabulary of 151,936 the head costs more time and memory than a small body. TRL's fused head leaves out the
prompt and the padding where there is Triton, and nothing elsewhere; here the hidden states are cut to the kept
positions before it, on every device.
"""

from collections.abc import Callable

import torch


def score_kept(model, backbone, kept: torch.Tensor, log_probs: torch.Tensor, entropies: torch.Tensor) -> Callable:
    """A function to call in the place of `model`, as TRL's losses call it (`labels`, `fused_lm_head=True`).

    `backbone` is the part of `model` that makes hidden states; `kept`, `log_probs` and `entropies` are of shape
    (completions, tokens). The output's log-probabilities and entropies are new, and have a gradient, where `kept` is
    true; elsewhere they are those given here, constants.
    """
    width = kept.size(1)

    def cut(module, args, output):
        # The hidden state at a position predicts the next one's token.
        output.last_hidden_state = output.last_hidden_state[:, -width - 1 : -1][kept].unsqueeze(0)  # (1, kept, hidden)
        return output

    def forward(*, labels, **inputs):
        hook = backbone.register_forward_hook(cut)
        try:
            output = model(shift_labels=labels[:, -width:][kept].unsqueeze(0), **inputs)
        finally:
            hook.remove()
        output.log_probs = log_probs.masked_scatter(kept, output.log_probs)
        output.entropy = entropies.masked_scatter(kept, output.entropy)
        return output

    return forward
