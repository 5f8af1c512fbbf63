"""`rlred serve`: an adapter behind an OpenAI-compatible API on this machine.

The server is `transformers serve` over whole weights, whose chat template words the budget. What is added:

    a value that the template refuses     status 400 with the template's sentence (there: 500, and a line in the log)
    a number out of range, no messages    status 400 that names it (there: 500)
    several answers at once (`n`)         status 400 (there: one answer)
    the thinking of a prompt that opens   is told apart from the answer, streamed or cut (there: only behind Qwen's own
    it                                    words; the prompt itself is part of the answer otherwise)
    a variable that it does not read      status 400 that names those it reads (there: dropped without a word)
    a request's own budget or effort      takes the place of every default that says something else (there: of the
                                          variable of the same name)
    an answer without max_tokens          ends by itself, or after as many tokens as the context has (there: 1024)
    the distribution                      is the whole one, as in training and in every table, whatever the base's
                                          generation_config.json says but for its temperature (there: as it says)
    GET /v1/models                        lists the one model (there: the Hub's cache)
    POST /reset, POST /load_model         are not there: one ends the server for good, one loads what a client names
"""

import contextlib
import errno
import json
import math
import os
import shlex
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from jinja2.meta import find_undeclared_variables
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import _compile_jinja_template
from transformers.utils.import_utils import is_serve_available

from rlred.data.models import NEUTRAL, context_of
from rlred.data.prompts import Conversation, prompt_text, template_settings
from rlred.files import read_record
from rlred.publish.export import export
from rlred.publish.serving import Served, runs_code
from rlred.publish.template import LARGEST, Variables, base_template
from rlred.tiny import adapter_folder, resolve_adapter

NEEDS = "rlred serve needs fastapi, openai and uvicorn; install them with: pip install 'rlred[serve]'"
CLOSED = ("/reset", "/load_model")
# Those that a refusal names, as far as the template has them.
VARIABLES = (*Variables.budgets, Variables.mode, "reasoning_effort")


def serve(
    adapter: str,
    host: str,
    port: int,
    *,
    device: str = "auto",
    settings: str | None = None,
    say: Callable = lambda _: None,
) -> None:
    """Serves an adapter's folder, an export or a whole model until it is interrupted.

    `settings` are variables of the chat template, as JSON, for requests that do not give them; `say` is told a request
    once the model is loaded. Raises `ValueError` for a folder that holds none of these, a value that the template
    refuses, an address in use, and where the extra `serve` is not installed; all of it before a request is taken.
    """
    if not is_serve_available():
        raise ValueError(NEEDS)
    check_address(host, port)
    told = template_settings(settings)
    with contextlib.suppress(KeyboardInterrupt), interruptible():
        with whole_weights(adapter) as (folder, example):
            trusted = may_run_code(Path(resolve_adapter(adapter)))
            renderer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)
            check_settings(renderer, told)
            # The server calls a model by the folder that it was given.
            with contextlib.chdir(folder.parent):
                server = checked_server(told, lambda: say(shown(example, address(host, port))))
                where = {"device": device, "host": host, "port": port, "trust_remote_code": trusted}
                server(folder.name, non_blocking=True, chat_template_kwargs=json.dumps(told), **where)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends what is inside like Ctrl-C, so that the folders made for it go; afterwards all is as it was."""
    numbers = (signal.SIGINT, signal.SIGTERM)  # both: a shell's background jobs ignore the first
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_address(host: str, port: int) -> None:
    """Raises `ValueError` where nothing can listen there: at none of the addresses of a name, IPv4's and IPv6's."""
    failed: list[OSError] = []
    try:
        found = {(family, own[:2]) for family, *_, own in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        for family, own in found:
            try:
                socket.create_server(own, family=family).close()
            except OSError as error:
                failed.append(error)
        # A machine without IPv6 may still have a name for it; an address in use is a reason by itself.
        missing = all(one.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) for one in failed)
        if failed and not (missing and len(failed) < len(found)):
            raise min(failed, key=lambda one: one.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))
    except (OSError, OverflowError, UnicodeError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and (error.errno or 0) > 0 else error
        raise ValueError(f"--port {port} on --host {host}: {reason}; name another") from None


def address(host: str, port: int) -> str:
    """The address of a server.

    >>> address("localhost", 8000), address("::1", 8000)
    ('http://localhost:8000', 'http://[::1]:8000')
    """
    return f"http://{bracketed(host)}:{port}"


def bracketed(host: str) -> str:
    """A host as it stands in an address: one of IPv6 between brackets."""
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def whole_weights(adapter: str) -> Iterator[tuple[Path, dict]]:
    """A folder of whole weights, called as the adapter is, and a request for it.

    Merged weights that an export has made are taken as they are; others are made for as long as the context lasts.
    """
    given = adapter_folder(adapter)
    name = given.resolve().name.replace("@", "-")  # behind an @ the server reads a revision
    with tempfile.TemporaryDirectory(prefix="rlred-serve-") as temporary:
        whole = next((one for one in (given, given / "merged") if (one / "config.json").is_file()), None)
        if whole is None:
            whole = export(given, Path(temporary) / "export" / name, merge=True) / "merged"
        folder = Path(temporary) / "served" / name
        folder.parent.mkdir()
        folder.symlink_to(whole.resolve())
        yield folder, request(given, name)


def may_run_code(run: Path) -> bool:
    """Whether a run's record says that its model's own code was run; a folder without one brings none that is run."""
    return (run / "run.json").is_file() and runs_code(read_record(run / "run.json"))


def request(run: Path, name: str) -> dict:
    """A request for the middle of the trained budgets; without variables where a run says of none."""
    config = run / "adapter_config.json"
    template = None
    if config.is_file() and (run / "run.json").is_file():
        template = Served.of(run, json.loads(config.read_text())["base_model_name_or_path"])
    if template is None:
        return {"model": name, "messages": [{"role": "user", "content": "What is 2+2?"}]}
    made = template.request(name)
    budget = template.variables.budgets[0]
    if budget in made["chat_template_kwargs"]:
        made["chat_template_kwargs"][budget] = sum(template.trained) // 2
    return made


def shown(example: dict, url: str) -> str:
    """What is printed once the server is about to listen."""
    body = shlex.quote(json.dumps(example))
    return (
        f"{example['model']} on {url}/v1; Ctrl-C ends it\n\n"
        f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n  -d {body}\n"
    )


def check_settings(renderer, settings: dict) -> None:
    """Raises `ValueError` unless the chat template reads these variables and takes their values."""
    if not renderer.chat_template:
        raise ValueError("the model has no chat template; a server could not word a request")
    check_read(renderer.chat_template, settings)
    prompt_text(renderer, Conversation([{"role": "user", "content": "What is 2+2?"}], settings))


def check_read(template: str | dict, settings: dict) -> None:
    """Raises `ValueError` for a variable that the template does not read.

    >>> check_read("{% if thinking_budget %}{% endif %}", {"thinking_budget": 8})
    >>> check_read("{% if budget_mode %}{% endif %}", {"effort": 1})
    Traceback (most recent call last):
    ValueError: chat_template_kwargs.effort=1: the chat template of this model has no such variable; it has budget_mode
    """
    read: set[str] = set()
    for text in [template] if isinstance(template, str) else template.values():
        read |= find_undeclared_variables(_compile_jinja_template(text).environment.parse(text))
    for name, value in settings.items():
        if name not in read:
            known = ", ".join(one for one in (*VARIABLES, *(f"rlred_{one}" for one in VARIABLES)) if one in read)
            raise ValueError(
                f"chat_template_kwargs.{name}={value!r}: the chat template of this model has no such variable; it "
                f"has {known or 'none for a budget or an effort'}"
            )


def checked_server(defaults: dict, ready: Callable) -> type:
    """The class of transformers' server with what this module adds; `ready` is called when the model is loaded.

    `defaults` are variables of the chat template for requests that name none.

    With `non_blocking` its constructor calls `start_server`, which here serves in the same thread: Ctrl-C reaches it.
    """
    from fastapi.responses import JSONResponse
    from jinja2 import TemplateError
    from transformers.cli.serve import Serve
    from transformers.cli.serving.utils import get_response_template

    def refused(message: str, param: str | None = "chat_template_kwargs") -> JSONResponse:
        told = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
        return JSONResponse({"error": told}, status_code=400)

    async def template_refuses(_, error: TemplateError) -> JSONResponse:
        return refused(str(error))

    class Checked(Serve):
        def start_server(self):
            app = self.server.config.app
            app.add_exception_handler(TemplateError, template_refuses)
            app.router.routes[:] = [one for one in app.router.routes if getattr(one, "path", "") not in CLOSED]
            [loaded] = self._model_manager.loaded_models.values()
            sample(loaded.model.generation_config, context_of(loaded.model.config) or LARGEST)
            tokenizer = getattr(loaded.processor, "tokenizer", loaded.processor)
            tokenizer.response_template = anchored(get_response_template(tokenizer, loaded.model), tokenizer)

            handle = self._chat_handler.handle_request

            async def checked(body: dict, request_id: str):
                try:
                    check_request(body)
                except ValueError as error:
                    return refused(str(error), param=None)
                try:
                    body["chat_template_kwargs"] = asked(body, loaded.processor.chat_template, defaults)
                except ValueError as error:
                    return refused(str(error))
                return await handle(body, request_id)

            self._chat_handler.handle_request = checked
            self._chat_handler.chat_template_kwargs = {}  # `asked` knows which of them go with a request
            # Its own list is the Hub's cache, of which a server that is bound to one model serves nothing.
            about = {"id": self._model_manager.force_model, "object": "model", "owned_by": "rlred", "created": 0}
            self._model_manager.get_gen_models = lambda: [about]
            ready()
            self.server.run()

    return Checked


def check_request(body: dict) -> None:
    """Raises `ValueError` for a value of OpenAI's own that the server would fail at, or read as something else.

    >>> check_request({"messages": [{"role": "user", "content": "?"}], "max_tokens": 0})
    Traceback (most recent call last):
    ValueError: max_tokens must be a whole number, 1 or more; got 0
    """
    turns = body.get("messages")
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"messages must be a list of turns, each with a role and a content; got {turns!r:.80}")
    for name in ("max_tokens", "max_completion_tokens"):
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be a whole number, 1 or more; got {value!r}")
    ranges = (
        ("temperature", "0 or more", lambda one: 0 <= one < math.inf),
        ("top_p", "in (0, 1]", lambda one: 0 < one <= 1),
    )
    for name, said, within in ranges:
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not within(value)):
            raise ValueError(f"{name} must be a number, {said}; got {value!r}")
    if body.get("n") not in (None, 1):
        raise ValueError(f"n={body['n']!r}: this server gives one answer to a request; leave n out and ask again")
    if body.get("logprobs"):
        raise ValueError("logprobs: this server gives none; leave it out")


def anchored(template: dict | None, tokenizer) -> dict | None:
    """How transformers tells the thinking from the answer, beginning where this chat template opens the answer.

    The parser reads the prompt from its anchor on, to see whether the thinking is open already. Without the anchor's
    words in the prompt it takes all of it for the answer.
    """
    if template is None or "start_anchor" not in template:
        return template
    turns = [{"role": "user", "content": "?"}]
    opened = prompt_text(tokenizer, turns)
    known = [template["start_anchor"]] if isinstance(template["start_anchor"], str) else template["start_anchor"]
    if any(anchor in opened for anchor in known):
        return template
    asked = tokenizer.apply_chat_template(turns, tokenize=False)
    opening = opened.removeprefix(asked) if opened.startswith(asked) else ""
    thinking = template["fields"].get("reasoning_content", {}).get("open")
    opening = opening.partition(thinking)[0] if isinstance(thinking, str) else opening
    others = {name: value for name, value in template.items() if name != "start_anchor"}
    return {**others, "start_anchor": opening} if opening else others


def asked(body: dict, template: str | dict, defaults: dict | None = None) -> dict:
    """The variables of a request; OpenAI's `reasoning_effort` is one of them. Raises `ValueError` for one unread.

    Of the server's `defaults` those are left that the request does not name and does not contradict.
    """
    told = template_settings(body.get("chat_template_kwargs"))
    effort = body.pop("reasoning_effort", None)
    if effort is not None:
        told.setdefault("reasoning_effort", effort)
    check_read(template, told)
    plain = template if isinstance(template, str) else template.get("default", next(iter(template.values())))
    return {**Variables.beside(base_template(plain)).left_of(defaults or {}, told), **told}


def sample(config, context: int) -> None:
    """Makes a generation config sample from the whole distribution, as training and measuring do, up to the context.

    The base's temperature stays, for requests that name none. Where a config did not sample, the server would decode
    greedily at every temperature; at 0 it does so by itself.
    """
    for name, value in {**NEUTRAL, "do_sample": True, "top_k": 0, "top_p": 1.0, "max_new_tokens": context}.items():
        setattr(config, name, value)
