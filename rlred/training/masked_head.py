"""The language-model head on selected positions only: logits of the tokens that carry a loss, and of no others.

With a vocabulary of 151,936 the head costs more time and memory than a small body. TRL's fused head leaves out the
prompt and the padding where there is Triton, and nothing elsewhere; here the hidden states are cut to the selected
positions before it, on every device.
"""

from collections.abc import Callable

import torch


def score_selected(
    model, backbone, selected: torch.Tensor, log_probs: torch.Tensor, entropies: torch.Tensor
) -> Callable:
    """A function to call in the place of `model`, as TRL's losses call it (`labels`, `fused_lm_head=True`).

    `backbone` is the part of `model` that makes hidden states; `selected`, `log_probs` and `entropies` are of shape
    (completions, tokens). The output's log-probabilities and entropies are new, and have a gradient, where `selected`
    is true; elsewhere they are those given here, constants.
    """
    width = selected.size(1)

    def cut(module, args, output):
        # The hidden state at a position predicts the next one's token.
        hidden = output.last_hidden_state[:, -width - 1 : -1]
        output.last_hidden_state = hidden[selected].unsqueeze(0)  # (1, selected, hidden)
        return output

    def forward(*, labels, **inputs):
        hook = backbone.register_forward_hook(cut)
        try:
            output = model(shift_labels=labels[:, -width:][selected].unsqueeze(0), **inputs)
        finally:
            hook.remove()
        output.log_probs = log_probs.masked_scatter(selected, output.log_probs)
        output.entropy = entropies.masked_scatter(selected, output.entropy)
        return output

    return forward
