"""Scoring once against the released way: one pass per ratio through llmlingua 0.2.2.

    python -m tests.benchmark_compression --texts ../shared/data/gsm8k/train.jsonl

The same XLM-R with random weights, the same texts, the same machine, turn about in one run. The released way is
TokenSkip's loop, text by text and ratio by ratio, without its fresh model load per ratio; ours scores all texts once
and cuts them at every ratio. Needs `pip install llmlingua==0.2.2`, whose token counter (it would be downloaded) counts
words here.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from rlred.compression.cut import cut
from rlred.compression.scores import TokenClassifier
from tests.released_llmlingua import load_compressor, make_model

RATIOS = (0.9, 0.8, 0.7, 0.6, 0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="JSONL with `answer`, as GSM8K's")
    parser.add_argument("--num_texts", type=int, default=32)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    texts = [json.loads(line)["answer"] for line in args.texts.read_text().splitlines()[: args.num_texts]]
    with tempfile.TemporaryDirectory() as folder:
        name = make_model(Path(folder), texts, layers=args.layers, width=args.width)
        compressor, ours = load_compressor(name), TokenClassifier.from_pretrained(name)

    def count(text: str) -> int:
        return len(ours.tokenizer(text, add_special_tokens=False)["input_ids"])

    def released():
        return [[compressor.compress_prompt(text, rate=ratio) for text in texts] for ratio in RATIOS]

    def once():
        return [cut(text, spans, RATIOS, count) for text, spans in zip(texts, ours.batch(texts), strict=True)]

    ways = {"llmlingua 0.2.2, one pass per ratio": released, "ours, scored once and cut": once}
    ways["of that, the scoring"] = lambda: ours.batch(texts)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    parameters = sum(weight.numel() for weight in ours.model.parameters())
    mean = statistics.fmean(map(count, texts))
    print(
        f"{len(texts)} texts of {mean:.0f} pieces on average, {len(RATIOS)} ratios, XLM-R with {args.layers} layers "
        f"of width {args.width} ({parameters / 1e6:.1f} M parameters), float32, {args.repeats} repeats turn about, "
        "medians\n"
    )
    print("| way | seconds | texts per second | times as fast |")
    print("|---|---|---|---|")
    first = statistics.median(next(iter(seconds.values())))
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"| {name} | {middle:.2f} | {len(texts) / middle:.1f} | {first / middle:.1f} |")


if __name__ == "__main__":
    main()
