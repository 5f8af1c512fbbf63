"""A page that asks one question at three budgets, with the adapter and without it.

`rlred play` shows it, and `rlred export --space` makes it the app.py of a Hub Space. It imports nothing of rlred: what
it needs lies beside it, as rlred/publish/space.py writes it.

    page.json    what was trained (modes, range of budgets), and how the adapter is asked
    adapter/     the adapter with its tokenizer, whose chat template words a budget
    base/        the base, where page.json names no other
"""

import json
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

COLUMNS = 3
EVERY = 0.15  # seconds between two pictures of a page


class Steps(BaseStreamer):
    """The tokens of a batch, step by step; an exception of the thread that generates comes out where they are read."""

    def __init__(self):
        self.queue: queue.Queue = queue.Queue()
        self.prompt_is_next = True  # generate() hands over the prompt first

    def put(self, value) -> None:
        if not self.prompt_is_next:
            self.queue.put(value.tolist())
        self.prompt_is_next = False

    def end(self) -> None:
        self.queue.put(None)

    def __iter__(self) -> Iterator[list[int]]:
        while (step := self.queue.get()) is not None:
            if isinstance(step, Exception):
                raise step
            yield step


class Stop(StoppingCriteria):
    """Ends a batch whose reader has gone."""

    def __init__(self):
        self.now = threading.Event()

    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), self.now.is_set(), dtype=torch.bool, device=input_ids.device)


class Adapter:
    """The model of a folder, which answers with its adapter and without."""

    def __init__(self, folder: Path):
        self.about = json.loads((folder / "page.json").read_text(encoding="utf-8"))
        base = self.about["base"] or str(folder / "base")
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "adapter", padding_side="left")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        device = "cuda" if torch.cuda.is_available() else "cpu"
        told = {"revision": self.about["revision"] or "main", "dtype": self.about["dtype"], "use_safetensors": True}
        model = AutoModelForCausalLM.from_pretrained(base, **told).to(device)
        ends = model.generation_config.eos_token_id
        self.ends = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        self.model = PeftModel.from_pretrained(model, folder / "adapter").eval()
        self.context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**20

    def inputs(self, question: str, mode: str, budgets: list[int]):
        """The batch that asks for the budgets. Raises `ValueError`, one sentence, for what cannot be asked."""
        if not question or not question.strip():
            raise ValueError("The question is empty. Type one, or choose an example below.")
        system = [{"role": "system", "content": self.about["system"]}] if self.about["system"] else []
        turns = [*system, {"role": "user", "content": question.strip()}]
        texts = []
        for budget in budgets:
            whole = int(budget) if isinstance(budget, float) and budget.is_integer() else budget
            settings = {**self.about["settings"], self.about["budget"]: whole, self.about["mode"]: mode}
            try:
                text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False, **settings)
            except Exception as error:  # whatever a template raises
                raise ValueError((str(error).strip() or type(error).__name__).splitlines()[0]) from error
            texts.append(text)
        inputs = self.tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
        length = inputs["input_ids"].shape[1]
        if length + max(budgets) > self.context:
            raise ValueError(
                f"The prompt has {length} tokens and the largest budget is {max(budgets)}: together they are more than "
                f"the {self.context} that this model reads. Ask a shorter question, or for less."
            )
        return inputs.to(self.model.device)

    def most(self, inputs, budgets: list[int]) -> int:
        """Tokens at which an answer is cut: room to see that a budget is not kept."""
        wanted = int(2 * max(*budgets, self.about["trained"][1]))
        return min(wanted, self.context - inputs["input_ids"].shape[1])

    def answers(self, inputs, budgets: list[int], with_adapter: bool) -> Iterator[list[list[int]]]:
        """The tokens of every answer so far, end of sequence included, each time there are more."""
        steps, stop, rows = Steps(), Stop(), [[] for _ in budgets]

        def generate() -> None:
            try:
                self.model.generate(
                    **inputs,
                    do_sample=True,
                    temperature=self.about["temperature"],
                    top_k=0,
                    top_p=1.0,
                    **self.about["sampling"],  # nothing of the base's own, as in training
                    max_new_tokens=self.most(inputs, budgets),
                    pad_token_id=self.tokenizer.pad_token_id,
                    eos_token_id=sorted(self.ends),
                    stopping_criteria=[stop],
                    streamer=steps,
                )
            except Exception as error:  # whatever a model raises, to the reader
                steps.queue.put(error)

        def off() -> None:
            with self.model.disable_adapter():
                generate()

        thread = threading.Thread(target=generate if with_adapter else off, daemon=True)
        thread.start()
        try:
            for step in steps:
                for row, token in zip(rows, step, strict=True):
                    if not (row and row[-1] in self.ends):  # what follows an end is padding
                        row.append(token)
                yield rows
        finally:
            stop.now.set()
            thread.join()

    def text(self, row: list[int]) -> str:
        """What an answer says."""
        return self.tokenizer.decode([token for token in row if token not in self.ends]).strip()

    def meter(self, row: list[int], asked: int, done: bool) -> str:
        """Tokens used against those asked for, as HTML of numbers alone."""
        used = len(row)
        cut = done and not (row and row[-1] in self.ends)
        over = f", <b>{used - asked} over</b>" if used > asked else ""
        told = f"<b>{used}</b> of {asked} tokens{over}{', cut here' if cut else '' if done else ' ...'}"
        share, color = 100 * min(used, asked) / asked, "#c92a2a" if used > asked else "#2b8a3e"
        bar = f'<div style="width: {share:.0f}%; height: 10px; background: {color}"></div>'
        return f'{told}<div style="background: #8884; margin-top: 4px">{bar}</div>'


def asking(adapter: Adapter):
    """The page's function: what is shown, anew as the answers grow."""

    def ask(question: str, mode: str, *budgets: int):
        try:
            inputs = adapter.inputs(question, mode, list(budgets))
        except ValueError as error:
            yield [f"**{error}**", *[gr.skip()] * (4 * COLUMNS)]
            return
        shown = {True: [[] for _ in budgets], False: [[] for _ in budgets]}
        done = {True: False, False: False}

        def page(status: str) -> list:
            parts = [
                part
                for i, asked in enumerate(budgets)
                for on in (True, False)
                for part in (adapter.meter(shown[on][i], asked, done[on]), adapter.text(shown[on][i]))
            ]
            return [status, *parts]

        for on in (True, False):
            last, status = 0.0, f"Answering, adapter {'on' if on else 'off'} ..."
            for rows in adapter.answers(inputs, list(budgets), on):
                shown[on] = [list(row) for row in rows]
                if time.monotonic() - last > EVERY:
                    last = time.monotonic()
                    yield page(status)
            done[on] = True
            yield page(status)
        yield page("Done. Each press samples anew.")

    return ask


def page(folder: Path) -> gr.Blocks:
    """The page over a folder."""
    adapter = Adapter(folder)
    about = adapter.about
    low, high = about["trained"]
    with gr.Blocks(title=about["title"], analytics_enabled=False) as blocks:
        gr.Markdown(
            f"# {about['title']}\n\nOne question, three budgets. Budgets from {low} to {high} tokens were trained; "
            "others can be asked for. Tokens are counted to the end of the answer."
        )
        question = gr.Textbox(about["examples"][0], label="Question", lines=2, elem_id="question")
        mode = gr.Radio(about["modes"], value=about["modes"][0], label="Mode", visible=len(about["modes"]) > 1)
        budgets, outputs = [], []
        button = gr.Button("Ask", variant="primary", elem_id="ask")
        status = gr.Markdown("", elem_id="status")
        with gr.Row():
            for i in range(COLUMNS):
                with gr.Column(min_width=280):
                    start = round(low + (high - low) * i / (COLUMNS - 1))
                    told = {"label": "Budget", "info": f"1 to {2 * high} tokens", "elem_id": f"budget-{i}"}
                    budgets.append(gr.Slider(1, 2 * high, value=start, step=1, **told))
                    for name in ("on", "off"):
                        outputs.append(gr.HTML("", elem_id=f"used-{name}-{i}"))
                        label = "After: with the adapter" if name == "on" else "Before: without it"
                        outputs.append(gr.Textbox(label=label, lines=5, max_lines=12, elem_id=f"text-{name}-{i}"))
        gr.Markdown("Examples")
        with gr.Row():
            for one in about["examples"]:  # set in the browser, at once: a press of Ask never takes an older question
                gr.Button(one, size="sm").click(
                    None, None, question, js=f"() => {json.dumps(one)}", api_visibility="private"
                )
        # One at a time: the adapter is switched off and on in the one model.
        asked = {"inputs": [question, mode, *budgets], "outputs": [status, *outputs], "concurrency_limit": 1}
        ask = asking(adapter)
        button.click(ask, **asked, concurrency_id="model", api_name="ask")
        question.submit(ask, **asked, concurrency_id="model", api_visibility="private")
    return blocks


# No font from elsewhere: the page looks the same without a network.
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])

if __name__ == "__main__":
    page(Path(__file__).resolve().parent).launch(theme=THEME)
