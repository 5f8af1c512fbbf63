"""Reinforcement learning that puts the length of reasoning under control: budgets, length rewards, measured adherence.

Importing this imports nothing else: `from rlred.rewards import ExactLength` needs math-verify alone.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("rlred")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "0+unknown"
