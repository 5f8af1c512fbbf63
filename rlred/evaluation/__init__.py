"""Measured control: the same questions at the same budgets, for every model."""
