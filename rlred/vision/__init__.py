"""Fewer visual tokens: reductions of image features, models that really lose the tokens, and a policy that chooses."""
