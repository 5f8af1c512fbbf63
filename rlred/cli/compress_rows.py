import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlred.claims import claimed
from rlred.cli.compress_shared import LARGE, AskedByRatio, check_output, must_not_exist, read_traces
from rlred.compression.cut import RATIOS
from rlred.compression.mixing import DIFFICULTIES
from rlred.flags import option, required
from rlred.tiny import TINY_VERBOSE

CUTS = ("random",)


@dataclass(frozen=True, kw_only=True)
class Rows(AskedByRatio):
    """Traces cut at every ratio, as rows for SFT.

    rlred compress rows --traces work/traces.jsonl --scores work/scores.jsonl --ratios 1.0 0.8 --output work/rows.jsonl
    rlred compress rows --traces work/traces.jsonl --cut random --output work/rows.jsonl
    """

    traces: Path = required("File of `rlred compress traces`.", metavar="FILE")
    scores: Path | None = option(
        None, "File of `rlred compress scores`; needed without --levels and --cut.", metavar="FILE"
    )
    output: Path = required("JSONL file to make; must not exist.", metavar="FILE")
    tokenizer: str = option(TINY_VERBOSE, "Tokenizer of the target model; ratios are shares of its tokens.")
    ratios: list[float] = option(RATIOS, "Shares of the thinking to keep.")
    ratios_per_question: int = option(1, "Rows made of each trace.", metavar="N")
    difficulty: str | None = option(None, "Cut easy questions shorter (LiteCoT)", choices=DIFFICULTIES, metavar="BY")
    short_share: float | None = option(
        None, "Share of the rows that are cut; the rest stay whole (TL;DR).", metavar="SHARE"
    )
    unasked: bool = option(False, "Leave the ratio out of the prompt.")
    levels: list[float] = option(
        [], "In place of ratios: drop levels 0 to 4 of a trace with these probabilities (Dualformer).", metavar="P"
    )
    cut: str | None = option(
        None, "In place of ratios: end the thinking somewhere, as a server's hard cut does", choices=CUTS, metavar="HOW"
    )
    tolerance: float = option(0.05, "Leave out rows that miss their ratio by more.", metavar="X")
    unprotected: bool = option(False, "Also drop numbers and operators: a control.")
    alpaca: Path | None = option(None, "Also write LLaMA-Factory's format here.", metavar="FILE")
    seed: int = option(0, "Seed of what is drawn.", metavar="N")

    def __post_init__(self):
        check_output(self.output)
        must_not_exist("alpaca", self.alpaca)
        if sum(map(bool, (self.scores, self.levels, self.cut))) != 1:
            raise ValueError("rows: give one of --scores, --levels and --cut random")
        if (self.levels or self.cut) and (self.ratios != RATIOS or self.tolerance != 0.05 or self.unasked):
            raise ValueError(
                f"--{'levels' if self.levels else 'cut'}: these rows have no ratio; leave out --ratios, --tolerance "
                "and --unasked"
            )
        if self.levels and (self.difficulty or self.short_share is not None or self.unprotected):
            raise ValueError("--levels: leave out --difficulty, --short_share and --unprotected, which are for ratios")
        if self.cut and (self.difficulty or self.unprotected or self.alpaca):
            raise ValueError(
                "--cut: leave out --difficulty and --unprotected, which are for ratios, and --alpaca, whose "
                "format cannot keep the inserted end of thinking out of the loss"
            )

    def run(self) -> None:
        """Cuts traces by score or at random, or drops levels of them, and writes rows."""
        from rlred.compression.rows import to_alpaca
        from rlred.compression.stages import read_lines, write_rows
        from rlred.data.models import load_tokenizer
        from rlred.files import write_lines

        traces, tokenizer = read_traces(self.traces), load_tokenizer(self.tokenizer)
        ratio_format = self.make_ratio_format().fitted(tokenizer)
        with claimed(self.output.parent, self.output.name):
            write_rows(self.output, lambda keep: self.make(traces, tokenizer, ratio_format, keep))
            if self.alpaca:
                rows = read_lines(self.output, ("question", "completion"), at_least=LARGE)
                write_lines(self.alpaca, json_list(to_alpaca(rows, ratio_format)))
        print(f"{self.output}: {self.output.with_suffix('.json').read_text().strip()}")

    def make(self, traces: Sequence[dict], tokenizer, ratio_format, keep):
        """The rows by level, cut at random, or by score."""
        from rlred.compression.levels import make_level_rows
        from rlred.compression.random_cut import make_cut_rows
        from rlred.compression.rows import Cutting, make_rows
        from rlred.compression.stages import read_scores

        if self.levels:
            settings = {"draws": self.ratios_per_question, "seed": self.seed, "keep": keep}
            return make_level_rows(traces, self.levels, tokenizer, ratio_format, **settings)
        if self.cut:
            settings = {"draws": self.ratios_per_question, "short_share": self.short_share, "seed": self.seed}
            settings["keep"] = keep
            return make_cut_rows(traces, tokenizer, ratio_format, **settings)
        cutting = Cutting(
            self.ratios,
            self.ratios_per_question,
            tolerance=self.tolerance,
            protect=not self.unprotected,
            ask_ratio=not self.unasked,
            difficulty=self.difficulty,
            short_share=self.short_share,
            seed=self.seed,
        )
        return make_rows(traces, read_scores(self.scores, traces), cutting, tokenizer, ratio_format, keep)


def json_list(values: Iterable[dict]) -> Iterator[str]:
    """The pieces of an indented list in JSON, of one value at a time.

    >>> json.loads("".join(json_list([{"a": "x"}, {"a": "y"}]))), "".join(json_list([]))
    ([{'a': 'x'}, {'a': 'y'}], '[\\n\\n]\\n')
    """
    yield "[\n"
    for number, value in enumerate(values):
        text = json.dumps(value, indent=2).replace("\n", "\n  ")
        yield f"{',' if number else ''}\n  {text}".removeprefix("\n")
    yield "\n]\n"
