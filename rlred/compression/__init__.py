"""Chains of thought with fewer words: what may be cut (units), how much each part matters (scores), the cut (cut)."""
