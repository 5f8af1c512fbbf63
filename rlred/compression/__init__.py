"""Chains of thought with fewer words: what may be cut (spans), how much each part matters (scores), the cut (cut)."""
