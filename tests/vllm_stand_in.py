"""A stand-in for vLLM where it cannot be installed: its server over a tiny model, and what TRL imports of it.

    python -m tests.vllm_stand_in serve MODEL PORT LOG [DIE_AFTER]   the endpoints of `vllm serve` that TRL 1.16 asks
    python -m tests.vllm_stand_in run RECIPE FLAGS...                a recipe beside it: TRL's own client over real HTTP

Three things keep TRL from talking to a server without vLLM and a GPU, and each has the smallest stand-in:

    imports     vllm.{LLM, RequestOutput, SamplingParams} (LLM and SamplingParams as a colocated engine needs them; of
                LLM there may be one), vllm.sampling_params.StructuredOutputsParams,
                vllm.utils.network_utils.get_ip, vllm.distributed.weight_transfer.{nccl_common.trainer_init,
                packed_tensor.packed_nccl_broadcast_producer} (names of vLLM 0.28 and later)
    NCCL        weights go through a TCPStore from the trainer to the server, packed after the last was handed out,
                which is what vLLM's own packer does with up to 1 GB of them
    CUDA        `VLLMClient.init_communicator` refuses any other device; it is told "cuda", which it does nothing with

The server knows the request fields that TRL sends, by vLLM's CompletionRequest, and refuses others, which vLLM would
pass over. It writes every row that it answers to LOG, with the number of weight updates before it.
"""

import importlib.machinery
import json
import os
import runpy
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, SimpleNamespace

import torch

FIELDS = {"model", "prompt", "return_token_ids", "return_tokens_as_token_ids", "n", "repetition_penalty"}
FIELDS |= {"temperature", "top_p", "top_k", "min_p", "max_tokens", "logprobs", "seed", "stop_token_ids"}
NAME = "stand-in"


def trainer_init(init_info):
    """The trainer's end of the way that weights go."""
    store = torch.distributed.TCPStore(
        init_info["master_address"], init_info["master_port"], is_master=True, wait_for_workers=False
    )
    return SimpleNamespace(group=SimpleNamespace(store=store, socket=None), sent=0)


def packed_nccl_broadcast_producer(iterator, group, src, post_iter_func):
    """Sends tensors: packed as bytes, when the iterator has ended."""
    handed_out = [post_iter_func(item).detach().contiguous().view(torch.uint8).view(-1) for item in iterator]
    group.group.store.set(f"weights/{group.sent}", torch.cat(handed_out).numpy().tobytes())
    group.sent += 1


def install() -> None:
    """Puts what TRL imports of vLLM among the modules of this process; before TRL is imported."""
    sampling = {"LLM": LLM, "RequestOutput": object, "SamplingParams": SamplingParams}
    modules = {
        "vllm": {"__version__": "0.30.0", "__file__": __file__, **sampling},
        "vllm.sampling_params": {"StructuredOutputsParams": type("StructuredOutputsParams", (), {})},
        "vllm.utils": {},
        "vllm.utils.network_utils": {"get_ip": lambda: "127.0.0.1", "get_open_port": None},
        "vllm.distributed": {},
        "vllm.distributed.weight_transfer": {},
        "vllm.distributed.weight_transfer.nccl_common": {"trainer_init": trainer_init},
        "vllm.distributed.weight_transfer.packed_tensor": {
            "packed_nccl_broadcast_producer": packed_nccl_broadcast_producer
        },
    }
    for name, contents in modules.items():
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(sys.modules[name]).update(contents)


def run(recipe: str, flags: list[str]) -> None:
    """A recipe in this process, as from the command line."""
    install()
    from trl.generation import vllm_client

    own, retry = vllm_client.VLLMClient.init_communicator, vllm_client.Retry
    vllm_client.VLLMClient.init_communicator = lambda self, device: own(self, "cuda")
    vllm_client.Retry = lambda **told: retry(**{**told, "backoff_factor": 0.01})  # a minute is long in a test
    sys.argv = [f"recipes/{recipe}.py", *flags]
    runpy.run_path(sys.argv[0], run_name="__main__")


class Server:
    """A transformers model that answers as vLLM's server does; one batch at a time."""

    def __init__(self, model: str, log: str, die_after: int | None = None):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = AutoModelForCausalLM.from_pretrained(model).eval()
        self.pad = AutoTokenizer.from_pretrained(model).pad_token_id
        declared = self.model.generation_config.eos_token_id
        self.stops = set(declared if isinstance(declared, list) else [declared])
        self.log, self.die_after, self.lock = open(log, "a", encoding="utf-8"), die_after, threading.Lock()
        self.store, self.updates, self.answered, self.version = None, 0, 0, "default"
        self.room = self.model.config.max_position_embeddings

    def init_weight_transfer_engine(self, told: dict) -> dict:
        info = told["init_info"]
        assert (info["rank_offset"], info["world_size"], info["packed"]) == (1, 2, True)
        self.store = torch.distributed.TCPStore(info["master_address"], info["master_port"], is_master=False)
        self.received = 0
        return {"message": "Weight transfer initialized"}

    @torch.no_grad()
    def update_weights(self, told: dict) -> dict:
        """Reads what was announced; a name that the model does not have is an error, as in vLLM."""
        info = told["update_info"]
        packed = torch.frombuffer(bytearray(self.store.get(f"weights/{self.received}")), dtype=torch.uint8)
        for name, kind, shape in zip(info["names"], info["dtype_names"], info["shapes"], strict=True):
            dtype = getattr(torch, kind)
            size = torch.Size(shape).numel() * dtype.itemsize
            self.model.get_parameter(name).copy_(packed[:size].clone().view(dtype).view(shape))
            packed = packed[size:]
        assert not len(packed)
        self.received, self.updates = self.received + 1, self.updates + 1
        return {"message": "Weights updated"}

    def completions(self, told: dict) -> dict:
        asked = told["prompt"] if isinstance(told["prompt"][0], list) else [told["prompt"]]
        prompts = [ids for ids in asked for _ in range(told["n"])]
        rows = []
        for start in range(0, len(prompts), 32):
            rows += self.sample(prompts[start : start + 32], told)
        choices = []
        for ids, (tokens, chances) in zip(prompts, rows, strict=True):
            names = [f"token_id:{token}" for token in tokens]
            logprobs = {
                "tokens": names,
                "token_logprobs": chances,
                "top_logprobs": [{name: chance} for name, chance in zip(names, chances, strict=True)],
            }
            choices.append(
                {
                    "index": len(choices),
                    "text": "",
                    "prompt_token_ids": ids,
                    "token_ids": tokens,
                    "logprobs": None if told["logprobs"] is None else logprobs,
                    "finish_reason": "stop" if tokens[-1] in self.stops else "length",
                }
            )
            row = {"updates": self.updates, "prompt": ids, "tokens": tokens}
            row |= {name: told.get(name) for name in ("max_tokens", "temperature", "seed", "n")}
            self.log.write(json.dumps(row) + "\n")
        self.log.flush()
        self.answered += 1
        if self.die_after is not None and self.answered > self.die_after:
            os._exit(0)  # in the middle of an answer
        return {"model": NAME, "choices": choices}

    @torch.no_grad()
    def sample(self, prompts: list[list[int]], told: dict) -> list[tuple[list[int], list[float]]]:
        """Tokens up to the end of sequence, and their log-probabilities at the temperature."""
        torch.manual_seed(told.get("seed") or 0)
        width = max(map(len, prompts))
        ids = torch.tensor([[self.pad] * (width - len(row)) + row for row in prompts])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
        greedy = told["temperature"] == 0
        found = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=told["max_tokens"],
            pad_token_id=self.pad,
            return_dict_in_generate=True,
            output_scores=True,
            do_sample=not greedy,
            **({} if greedy else {"temperature": told["temperature"], "top_k": 0, "top_p": 1.0}),
        )
        tokens = found.sequences[:, width:]
        scores = torch.stack(found.scores, 1).log_softmax(-1).gather(2, tokens.unsqueeze(2)).squeeze(2)
        stops = self.stops | set(told.get("stop_token_ids") or [])
        rows = []
        for own, chances in zip(tokens.tolist(), scores.tolist(), strict=True):
            end = next((place + 1 for place, token in enumerate(own) if token in stops), len(own))
            rows.append((own[:end], chances[:end]))
        return rows


def longest(prompt: list) -> int:
    """Tokens of the longest of several prompts, or of a single one."""
    return max(map(len, prompt)) if isinstance(prompt[0], list) else len(prompt)


class SamplingParams(SimpleNamespace):
    """The fields that are asked for, and no others."""

    def __init__(self, **told):
        unknown = set(told) - FIELDS
        assert not unknown, unknown
        super().__init__(**{"n": 1, "logprobs": None, "seed": None, **told})


class LLM:
    """A colocated engine over a transformers model; a second one would not fit beside the first."""

    made = 0

    def __init__(self, model, max_model_len, **settings):
        LLM.made += 1
        assert LLM.made == 1 and settings["distributed_executor_backend"] == "external_launcher"
        self.server = Server(model, os.environ["STAND_IN_LOG"])
        runner = SimpleNamespace(model=SimpleNamespace(load_weights=self.load_weights))
        executor = SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner))
        room = max_model_len or self.server.room
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=room), model_executor=executor)

    @torch.no_grad()
    def load_weights(self, weights):
        for name, value in weights:
            self.server.model.get_parameter(name).copy_(value)

    def reset_prefix_cache(self):
        """Called once after each push."""
        self.server.updates += 1

    def generate(self, prompts, sampling_params, use_tqdm):
        own = isinstance(sampling_params, list)
        found = []
        for prompt, told in zip(prompts, sampling_params if own else [sampling_params] * len(prompts), strict=True):
            row = {"prompt": [prompt["prompt_token_ids"]], **vars(told), **({} if own else {"seed": len(found)})}
            [choice] = self.server.completions(row)["choices"]
            tokens, logprobs = choice["token_ids"], choice["logprobs"]
            if logprobs is not None:
                chances = zip(tokens, logprobs["token_logprobs"], strict=True)
                logprobs = [{token: SimpleNamespace(rank=1, logprob=chance)} for token, chance in chances]
            output = SimpleNamespace(token_ids=tokens, logprobs=logprobs)
            found.append(SimpleNamespace(prompt_token_ids=prompt["prompt_token_ids"], outputs=[output]))
        return found


class Handler(BaseHTTPRequestHandler):
    """The endpoints, by the names that vLLM gives them."""

    server_model: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        config = {
            "weight_transfer_config": {"backend": "nccl"},
            "model_config": {"logprobs_mode": "processed_logprobs"},
        }
        known = {
            "/health": {},
            "/v1/models": {"data": [{"id": NAME}]},
            "/get_world_size": {"world_size": 1},
            "/server_info": {"vllm_config": config},
        }
        path = self.path.partition("?")[0]
        known |= {"/weight_info": {"weight_version": self.server_model.version}}
        self.answer(200 if path in known else 404, known.get(path, {}))

    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
        with self.server_model.lock:
            if self.path == "/v1/completions":
                unknown = set(told) - FIELDS
                if unknown or told["model"] != NAME:
                    self.answer(400, {"error": {"message": f"unknown: {sorted(unknown) or told['model']}"}})
                elif (needed := longest(told["prompt"]) + told["max_tokens"]) > self.server_model.room:
                    self.answer(400, {"error": {"message": f"{needed} tokens are over the maximum context length"}})
                else:
                    self.answer(200, self.server_model.completions(told))
            elif self.path == "/update_weight_version":
                self.server_model.version = told["new_version"]
                self.answer(200, {"success": True, **told})
            elif self.path in ("/start_weight_update", "/finish_weight_update"):
                self.answer(200, {})
            elif self.path == "/reset_prefix_cache":
                self.answer(200, {"success": True})
            elif self.path in ("/init_weight_transfer_engine", "/update_weights"):
                self.answer(200, getattr(self.server_model, self.path[1:])(told))
            else:
                self.answer(404, {})

    def answer(self, status: int, contents: dict) -> None:
        body = json.dumps(contents).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve(model: str, port: str, log: str, die_after: str | None = None) -> None:
    """Serves until it is killed."""
    torch.set_num_threads(1)
    Handler.server_model = Server(model, log, None if die_after is None else int(die_after))
    ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        run(sys.argv[2], sys.argv[3:])
