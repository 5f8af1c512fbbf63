"""Traces, rows and evaluation by ratio, and recipes/tokenskip.py from its command line to its tables."""

import json
import random

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlred.cli import main as rlred
from rlred.compression.arguments import CompressionArguments
from rlred.compression.cut import cut
from rlred.compression.evaluate import (
    measure_ratios,
    num_thinking_tokens,
    ratio_conditions,
    sweep_ratios,
    truncated,
)
from rlred.compression.rows import RATIO_FORMATS, Cutting, features, make_ratio_format, make_rows, to_alpaca
from rlred.compression.scores import Random, Stride
from rlred.compression.stages import read_scores, scores_stage
from rlred.compression.traces import load_traces, sample_traces, split_completion
from rlred.data.questions import load_questions
from rlred.evaluation.results import read_result
from rlred.evaluation.sampling import Sampling
from rlred.rewards import Correctness
from rlred.runs.arguments import SFT_KINDS, parse
from rlred.runs.compression import run
from rlred.tiny import sums, talk
from tests.paths import ROOT

BASE = ROOT / "data" / "tiny_verbose"
RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(BASE, dtype="float32")


def talked(n):
    """Traces as the verbose model says them, without asking it."""
    rng, traces = random.Random(0), []
    for row in sums.questions(n, "train", family="short_sums"):
        addends = [int(part) for part in row["question"].removesuffix("=?").split("+")]
        traces.append({**row, **split_completion(talk.trace(addends, rng))._asdict()})
    return traces


@pytest.mark.parametrize(
    "text, thinking, answer",
    [
        ("<think>\nSo 3.\n</think>\n\n\\boxed{3}", "So 3.", "\\boxed{3}"),
        ("3+4=7</think>\\boxed{7}", "3+4=7", "\\boxed{7}"),
        ("It is 7.\n\nThe final answer is: $\\boxed{7}$", "It is 7.", "The final answer is: $\\boxed{7}$"),
        ("First 3+4=7.\nSo $\\boxed{7}$ it is.", "First 3+4=7.", "So $\\boxed{7}$ it is."),
        ("It costs $3.50. So: \\boxed{3.50}", "It costs $3.50.", "So: \\boxed{3.50}"),
        ("no answer at all", "no answer at all", ""),
        ("\\boxed{7}", "", "\\boxed{7}"),
        ("</think>\\boxed{7}", "", "\\boxed{7}"),
    ],
)
def test_a_completion_is_taken_apart_and_nothing_is_lost(text, thinking, answer):
    parts = split_completion(text)
    assert (parts.thinking, parts.answer) == (thinking, answer)
    assert "".join(parts) == text


def test_traces_are_the_models_own_right_ones_and_sampling_goes_on(model, tokenizer, tmp_path):
    questions = list(load_questions("short_sums", limit=24))
    settings = {"sampling": Sampling(128, batch_size=8), "path": tmp_path / "all.jsonl"}
    traces, report = sample_traces(model, tokenizer, questions, RATIO_FORMATS["words"], **settings)
    assert report["sampled"] == 24 and report["kept"] == len(traces) > 12
    for trace in traces:
        assert Correctness()([trace["answer"]], solution=[trace["solution"]]) == [1.0]
        assert trace["separator"] == "</think>" and trace["thinking"].count("+") >= 2
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    (tmp_path / "all.jsonl").write_text("\n".join(lines[:2]) + "\n" + lines[2][:40])  # killed in the second batch
    again, _ = sample_traces(model, tokenizer, questions, RATIO_FORMATS["words"], **settings)
    assert again == traces


def test_no_correct_trace_is_an_error(random_model, tokenizer, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(random_model)
    questions = list(load_questions("short_sums", limit=4))
    with pytest.raises(ValueError, match=r"none of the sampled completions is correct .* \(4 sampled"):
        sample_traces(model, tokenizer, questions, RATIO_FORMATS["words"], sampling=Sampling(8, temperature=0))


def test_traces_are_read_from_released_predictions(tmp_path):
    rows = [
        {"question": "3+4=?", "answer": "#### 7", "model_output": "She adds 3+4=7. So $\\boxed{7}$."},
        {"question": "3+5=?", "answer": "#### 8", "model_output": "So $\\boxed{9}$."},
        {"question": "3+6=?", "answer": "#### 9", "model_output": "\\boxed{9}"},
        {"question": "3+7=?", "answer": "", "model_output": "Well, \\boxed{10}"},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    traces, report = load_traces(tmp_path / "p.jsonl")
    assert [trace["thinking"] for trace in traces] == ["She adds 3+4=7."]
    assert report == {"sampled": 4, "incorrect": 1, "without thinking": 1, "without a gold answer": 1, "kept": 1}


def test_empty_thinking_everywhere_is_an_error(tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps({"question": "3", "answer": "3", "output": "</think>\\boxed{3}"}))
    with pytest.raises(ValueError, match="1 without thinking"):
        load_traces(tmp_path / "p.jsonl")


QWEN = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nPlease reason step by step, and put "
    "your final answer within \\boxed{{}}.\nHow many?{}<|im_end|>\n<|im_start|>assistant\n"
)
LLAMA = (
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nPlease reason step by step, and put your final "
    "answer within \\boxed{{}}.\nHow many?\n<|eot_id|>{}<|start_header_id|>assistant<|end_header_id|>\n\n"
)


@pytest.mark.parametrize(
    "name, ratio, prompt",
    [
        ("tokenskip_qwen", 1.0, QWEN.format("")),
        ("tokenskip_qwen", 0.5, QWEN.format("<|eot_id|>0.5<|eot_id|>")),
        ("tokenskip_llama3", 1.0, LLAMA.format("")),
        ("tokenskip_llama3", 0.5, LLAMA.format("0.5<|eot_id|><|eot_id|>")),
    ],
)
def test_the_presets_are_the_released_prompts_byte_for_byte(name, ratio, prompt, tokenizer):
    """The strings of TokenSkip's evaluation.py (ef02f53), as the reference page quotes them."""
    assert RATIO_FORMATS[name].prompt_text("How many?", ratio, tokenizer) == prompt


def test_the_preset_writes_tokenskips_completion_and_alpaca_row(tokenizer):
    trace = {"question": "1+1?", "opening": "", "thinking": "So it is 1+1=2.", "separator": " ", "answer": "\\boxed{2}"}
    fmt = RATIO_FORMATS["tokenskip_qwen"]
    rows, _ = make_rows([trace], [Stride()(trace["thinking"])], Cutting([0.8], tolerance=0.2), tokenizer, fmt)
    [row] = to_alpaca(rows, fmt)
    assert row["instruction"] == "Please reason step by step, and put your final answer within \\boxed{}."
    assert row["input"] == "1+1?<|eot_id|>0.8<|eot_id|>"
    assert row["output"] == "So is 1+1=2\n\nThe final answer is: $\\boxed{2}$"


@pytest.mark.parametrize("name", RATIO_FORMATS)
def test_trap_training_and_inference_see_the_same_prompt(name, tokenizer):
    traces = talked(8)
    fmt = RATIO_FORMATS[name]
    rows, _ = make_rows(traces, [Random()(t["thinking"]) for t in traces], Cutting([1.0, 0.7]), tokenizer, fmt)
    for row, one in zip(rows, features(rows, tokenizer), strict=True):
        prompt = [i for i, trained in zip(one["input_ids"], one["completion_mask"], strict=True) if not trained]
        assert prompt == fmt.prompt_ids(row["question"], row["ratio"], tokenizer)
        assert one["input_ids"][-1] == tokenizer.eos_token_id and one["completion_mask"][-1] == 1


def test_a_row_has_the_ratio_that_it_asks_for_and_the_whole_answer(tokenizer):
    traces = talked(200)
    spans = [Random()(trace["thinking"]) for trace in traces]
    rows, report = make_rows(traces, spans, Cutting(RATIOS, 2), tokenizer, RATIO_FORMATS["words"])
    assert len(rows) == 400 == report["rows"]
    by_question = {trace["question"]: trace for trace in traces}
    for row in rows:
        assert abs(row["achieved"] - row["ratio"]) <= 0.05
        trace = by_question[row["question"]]
        assert row["completion"].endswith(trace["separator"] + trace["answer"])
        if row["ratio"] == 1:
            assert row["completion"] == trace["thinking"] + trace["separator"] + trace["answer"]
            assert "tokens." not in row["prompt"]
        else:
            assert f" Think within {row['ratio']} of the tokens." in row["prompt"]
    for line in report["by_ratio"]:
        assert line["n"] > 20 and abs(line["achieved"] - line["ratio"]) < 0.03


def test_a_trace_has_no_row_at_a_ratio_that_it_cannot_reach(tokenizer):
    traces = [{**talked(1)[0], "thinking": "3+4=7 " * 6 + "so"}, *talked(20)]
    spans = [Random()(trace["thinking"]) for trace in traces]
    settings = {"ratios_per_question": 6, "tolerance": 0.05}
    rows, report = make_rows(traces, spans, Cutting(RATIOS, **settings), tokenizer, RATIO_FORMATS["words"])
    own = [row["ratio"] for row in rows if row["completion"].startswith("3+4=7 3+4=7")]
    assert 1.0 in own and min(own) > 0.8
    assert report["by_ratio"][-1]["out_of_reach"] >= 1


BAD_ROWS = [
    ({"ratios": [0.05]}, "no trace can be cut to 0.05"),
    ({"ratios": [0]}, "ratio must be above 0 and at most 1"),
    ({"ratios": [1.1]}, "ratio must be above 0 and at most 1"),
    ({"ratios": []}, "ratios is empty"),
    ({"ratios_per_question": 0}, "ratios_per_question must be 1 or more"),
    ({"tolerance": -1}, "tolerance must be from 0"),
]


@pytest.mark.parametrize("settings, message", BAD_ROWS)
def test_bad_settings_of_rows_are_errors(settings, message, tokenizer):
    traces = talked(3)
    settings = {"ratios": [1.0], **settings}
    with pytest.raises(ValueError, match=message):
        make_rows(traces, [[]] * 3, Cutting(**settings), tokenizer, RATIO_FORMATS["words"])


def test_a_format_can_be_given_by_its_fields():
    fmt = make_ratio_format({"input": "{question}{marker}", "marker": " [{ratio}]"})
    assert fmt.user_turn("What is {marker}?", 0.5) == "What is {marker}? [0.5]"
    for bad, message in (
        (".", "no preset named"),
        ({"input": "{question}"}, "{marker}"),
        ({"marker": ""}, "{question}"),
    ):
        with pytest.raises(ValueError, match=message):
            make_ratio_format(bad)


def test_scoring_goes_on_and_refuses_other_texts(tmp_path):
    traces, path = talked(150), tmp_path / "scores.jsonl"
    spans = scores_stage(path, traces, Random(), "random")
    whole = path.read_text()
    assert len(whole.splitlines()) == 1 + 3 and list(read_scores(path, traces)) == list(spans)
    path.write_text("\n".join(whole.splitlines()[:2]) + "\n[[[0, 1")  # killed while it wrote
    with pytest.raises(ValueError, match="finish the scoring first"):
        read_scores(path, traces)
    scores_stage(path, traces, Random(), "random")
    assert path.read_text() == whole
    with pytest.raises(ValueError, match="other texts or by another scorer"):
        scores_stage(path, traces[1:], Random(), "random")


def test_thinking_and_answer_are_counted_apart_by_their_own_ids(tokenizer):
    ids = tokenizer("3+7=10</think>\\boxed{10}", add_special_tokens=False)["input_ids"]
    assert num_thinking_tokens([*ids, tokenizer.eos_token_id], tokenizer) == 5
    plain = "3+7=10 check.\n\nThe final answer is: $\\boxed{10}$"
    ids = tokenizer(plain, add_special_tokens=False)["input_ids"]
    thinking = len(tokenizer("3+7=10 check.", add_special_tokens=False)["input_ids"])
    del tokenizer  # a model without the tag
    bare = AutoTokenizer.from_pretrained(BASE)
    assert num_thinking_tokens(ids, bare) == thinking
    assert num_thinking_tokens(ids[:3], bare) == 3  # cut before any answer


def test_every_ratio_has_the_same_cap_and_the_control_is_cut_at_the_ratio(model, tokenizer, tmp_path):
    questions = list(load_questions("short_sums", split="test", limit=4))
    fmt = RATIO_FORMATS["words"]
    settings = {"sampling": Sampling(20, temperature=0), "folder": tmp_path}
    outcomes = sweep_ratios(model, tokenizer, questions, ratio_conditions(fmt, [0.5]), **settings)
    assert [row["ratio"] for row in measure_ratios(outcomes)] == [1.0, 0.5]
    assert {outcome["length"] for outcome in outcomes} == {20}  # none is scaled by its ratio
    assert all(row["truncated"] == 1 for row in measure_ratios(outcomes))
    assert all(outcome["seconds"] > 0 for outcome in outcomes)
    again = sweep_ratios(model, tokenizer, questions, ratio_conditions(fmt, [0.5]), **settings)
    assert [one["completion_ids"] for one in again] == [one["completion_ids"] for one in outcomes]
    assert again[0]["seconds"] is None  # nothing was generated, so nothing was timed
    for one in truncated(model, tokenizer, questions, outcomes, fmt):
        assert one["thinking_length"] == 10 and "</think>\\boxed{" in one["completion"]


SMALL = {
    "num_questions": 40, "num_eval_questions": 6, "eval_ratios": "0.3", "max_steps": 2, "save_steps": 2,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1, "lora_r": 4, "max_completion_length": 96, "ratios": "1.0 0.7 0.5",
}  # fmt: skip


def flags(**settings):
    return [word for name, value in {**SMALL, **settings}.items() for word in (f"--{name}", *str(value).split())]


def recipe(**settings):
    kinds = (CompressionArguments, *SFT_KINDS)
    return parse(ROOT / "recipes" / "tokenskip.yaml", flags(**settings), kinds)


def test_the_recipe_trains_an_adapter_that_ends_in_a_table(tmp_path):
    result = run(*recipe(output_dir=tmp_path / "run", controls="random-unprotected"), tmp_path)
    assert list(result.blocks) == ["base", "question", "truncation", "random-unprotected"]
    for name, block in result.blocks.items():
        assert [row["ratio"] for row in block["rows"]] == [1.0, 0.7, 0.5, 0.3][name == "truncation" :]
        assert all(row["n"] == 6 and 0 <= row["accuracy_low"] <= row["accuracy"] for row in block["rows"])
    base, trained = (result.rows(name) for name in ("base", "question"))
    assert base != trained
    table = (tmp_path / "run" / "ratios.md").read_text()
    assert "0.3 (untrained)" in table and "truncated %" in table and (tmp_path / "run" / "ratios.png").exists()
    assert (tmp_path / "run" / "controls" / "random-unprotected" / "adapter_model.safetensors").exists()

    # What is there is not done again, and a run is not written over.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.jsonl")}
    again = run(
        *recipe(output_dir=tmp_path / "run", controls="random-unprotected", resume_from_checkpoint="true"), tmp_path
    )
    assert {path: path.stat().st_mtime_ns for path in before} == before
    spent = "mean_thinking_length"
    assert [row[spent] for row in again.rows("question")] == [row[spent] for row in trained]
    with pytest.raises(ValueError, match="already holds a run"):
        run(*recipe(output_dir=tmp_path / "run"), tmp_path)

    # The same adapter by `rlred evaluate`.
    command = f"evaluate --adapter {tmp_path / 'run'} --ratios 0.7 0.2 --questions short_sums"
    command += f" --num_questions 6 --output {tmp_path / 'again'}"
    assert rlred(command.split()) == 0
    found = read_result(tmp_path / "again", "ratios")
    assert found.labels["trained_ratios"] == [1.0, 0.7, 0.5]
    assert list(found.blocks) == ["base", "trained", "truncation"]


BAD = [
    ({"ratios": "0.5"}, "ratios must hold 1.0"),
    ({"ratios": "1.0 2.0"}, "ratio must be above 0 and at most 1"),
    ({"scorer": "gpt4"}, "none is called 'gpt4'"),
    ({"controls": "random random"}, "named twice"),
    ({"ratio_format": "l1"}, "no preset named 'l1'"),
    ({"num_samples": 0}, "num_samples must be 1 or more"),
    ({"num_samples": 2, "trace_temperature": 0}, "greedy samples are all the same"),
    ({"eval_temperature": -1}, "eval_temperature must be 0 or more"),
    ({"use_peft": "false"}, "use_peft=False"),
    ({"scorer": "levels", "short_share": 0.5}, "short_share: rows of the scorer 'levels' have no ratio"),
    ({"scorer": "levels", "difficulty": "length"}, "difficulty: rows of the scorer 'levels' have no ratio"),
    ({"scorer": "random_cut", "tolerance": 0.5}, "tolerance: rows of the scorer 'random_cut' have no ratio"),
    (
        {"scorer": "levels", "ratios": "1.0 0.5"},
        "ratios: rows of the scorer 'levels' have no ratio to choose; leave it",
    ),
    ({"scorer": "random_cut", "ratios": "1.0 0.5"}, "ratios: rows of the scorer 'random_cut' have no ratio"),
    ({"traces": "nowhere.jsonl"}, "nowhere.jsonl: no such file"),
]


@pytest.mark.parametrize("settings, message", BAD)
def test_bad_input_of_the_recipe_is_an_error_before_training(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(*recipe(output_dir=tmp_path / "run", **settings), tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("tokenskip*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_of_the_recipe_parses(path):
    kinds = (CompressionArguments, *SFT_KINDS)
    arguments, training, model_config = parse(path, ["--bf16", "false", "--use_cpu", "true"], kinds)
    assert arguments.ratios[-1] == 0.5 and model_config.use_peft
    if "qwen" in path.stem:
        assert (model_config.lora_r, model_config.lora_alpha, training.learning_rate) == (8, 16, 5e-5)
        assert (training.num_train_epochs, training.gradient_accumulation_steps, training.warmup_steps) == (3, 8, 0.1)


def test_the_stages_as_commands(tmp_path, capsys):
    traces, scores, rows = (tmp_path / f"{name}.jsonl" for name in ("traces", "scores", "rows"))
    sample = f"compress traces --num_questions 24 --max_completion_length 96 --temperature 1 --output {traces}"
    score = f"compress scores --traces {traces} --scorer question --scorer_model tiny_verbose --output {scores}"
    cut_them = f"compress rows --traces {traces} --scores {scores} --output {rows} --alpaca {tmp_path / 'alpaca.json'}"
    for command in (sample, score, cut_them):
        assert rlred(command.split()) == 0
    assert len(json.loads((tmp_path / "alpaca.json").read_text())) == len(rows.read_text().splitlines())
    assert rlred(score.split()) == 0  # there already: nothing to do
    assert rlred(cut_them.split()) == 2 and "exists and is not written over" in capsys.readouterr().err
    for words, message in (
        (f"rows --traces {traces} --scores {traces} --output {tmp_path / 'x'}", "finish the scoring first"),
        (f"rows --traces nowhere --scores {scores} --output {tmp_path / 'x'}", "nowhere: no such file"),
        (f"rows --traces {traces} --scores {scores} --ratios 2 --output {tmp_path / 'x'}", "ratio must be above 0"),
        (f"scores --traces {traces} --scorer gpt4 --output {tmp_path / 'x'}", "none is called 'gpt4'"),
        (f"traces --from_file nowhere --output {tmp_path / 'x'}", "nowhere: no such file"),
    ):
        assert rlred(["compress", *words.split()]) == 2
        assert message in capsys.readouterr().err


def test_the_verbose_model_says_what_its_sum_needs_and_more(tokenizer):
    for trace in talked(50):
        count = lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
        [half] = cut(trace["thinking"], [], [0.5], count)
        assert half.forced <= 0.55
        last = trace["thinking"].rpartition("=")[2].split()[0].rstrip(".")
        assert last == trace["solution"] and tokenizer.unk_token_id not in tokenizer(trace["thinking"])["input_ids"]
