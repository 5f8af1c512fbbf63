"""The address that scripts know (`from rlred.questions import load_questions`) of rlred/data/questions.py."""

from rlred.data.questions import load_questions, read_json, read_source, solution_of

__all__ = ["load_questions", "read_json", "read_source", "solution_of"]
