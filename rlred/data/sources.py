"""Where questions come from and what belongs to a prompt, as fields that commands have in common. Imports no torch."""

from dataclasses import dataclass

from rlred.flags import option


@dataclass(frozen=True, kw_only=True)
class QuestionSource:
    """Questions."""

    questions: str = option("sums", "An embedded family, a JSON/JSONL/Parquet/CSV file, or a Hub id.")
    questions_config: str | None = option(None, "Configuration of a Hub dataset.", metavar="NAME")
    split: str = option("train", "Split of the questions.")
    question_column: str | None = option(
        None, "Column of the questions (default: found by its usual names).", metavar="NAME"
    )
    solution_column: str | None = option(
        None, "Column of the answers (default: found by its usual names).", metavar="NAME"
    )

    def load(self, limit: int | None = None, seed: int = 0):
        """The question rows, at most `limit` of them."""
        from rlred.data.questions import load_questions

        columns = {"question_column": self.question_column, "solution_column": self.solution_column}
        settings = {"split": self.split, "config": self.questions_config, "limit": limit, "seed": seed}
        return load_questions(self.questions, **settings, **self.more_settings(), **columns)

    def more_settings(self) -> dict:
        """What else `load_questions` is told."""
        return {}


@dataclass(frozen=True, kw_only=True)
class ManyQuestions(QuestionSource):
    """Many questions."""

    streaming: bool = option(False, "Read --num_questions rows of a Hub dataset or folder, and download no more.")
    share: str | None = option(
        None, "Sample the K-th of N shares of the questions; a last run without --share joins them.", metavar="K/N"
    )

    def more_settings(self) -> dict:
        return {"streaming": self.streaming}


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """Prompts."""

    system_prompt: str | None = option(
        None, "System prompt of questions without one of their own ('' for none).", metavar="TEXT"
    )
    chat_template_kwargs: str | None = option(
        None, 'Settings of the chat template, as {"enable_thinking": false}.', metavar="JSON"
    )
    end_of_thinking: str | None = option(None, "What ends the thinking ('' for a model without).", metavar="TEXT")

    def given(self) -> dict:
        """What was said, by the names of the fields of `Prompts`."""
        from rlred.data.prompts import template_settings

        told = {"system_prompt": self.system_prompt, "end_of_thinking": self.end_of_thinking}
        if self.chat_template_kwargs is not None:
            told["chat_template_kwargs"] = template_settings(self.chat_template_kwargs)
        return {name: value for name, value in told.items() if value is not None}
