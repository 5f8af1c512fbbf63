"""`rlred serve`: an adapter behind an OpenAI-compatible API on this machine.

The server is `transformers serve` over whole weights, whose chat template words the budget. Four things are added:

    a value that the template refuses     status 400 with the template's sentence (there: 500, and a line in the log)
    a variable that it does not read      status 400 that names those it reads (there: dropped without a word)
    a request's temperature               is kept where the base's generation_config.json decodes greedily
    GET /v1/models                        lists the one model (there: the Hub's cache)
"""

import contextlib
import json
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

from rlred.data.prompts import Conversation, prompt_text, template_settings
from rlred.publish.export import export
from rlred.publish.serving import Served
from rlred.publish.template import Variables
from rlred.tiny import resolve_adapter

NEEDS = "rlred serve needs fastapi, openai and uvicorn; install them with: pip install 'rlred[serve]'"
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
            renderer = AutoTokenizer.from_pretrained(folder)
            check_settings(renderer, told)
            # The server calls a model by the folder that it was given.
            with contextlib.chdir(folder.parent):
                server = checked_server(lambda: say(shown(example, f"http://{host}:{port}")))
                told = {"chat_template_kwargs": json.dumps(told), "device": device, "host": host, "port": port}
                server(folder.name, non_blocking=True, **told)


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
    """Raises `ValueError` where nothing can listen there."""
    try:
        with socket.create_server((host, port)):
            pass
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and (error.errno or 0) > 0 else error
        raise ValueError(f"--port {port} on --host {host}: {reason}; name another") from None


@contextlib.contextmanager
def whole_weights(adapter: str) -> Iterator[tuple[Path, dict]]:
    """A folder of whole weights, called as the adapter is, and a request for it.

    Merged weights that an export has made are taken as they are; others are made for as long as the context lasts.
    """
    given = Path(resolve_adapter(adapter))
    if not given.is_dir():
        raise ValueError(f"{adapter}: there is no such folder; name an adapter's, or l1_maxlen for the embedded one")
    name = given.resolve().name.replace("@", "-")  # behind an @ the server reads a revision
    with tempfile.TemporaryDirectory(prefix="rlred-serve-") as temporary:
        whole = next((one for one in (given, given / "merged") if (one / "config.json").is_file()), None)
        if whole is None:
            whole = export(given, Path(temporary) / "export" / name, merge=True) / "merged"
        folder = Path(temporary) / "served" / name
        folder.parent.mkdir()
        folder.symlink_to(whole.resolve())
        yield folder, request(given, name)


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


def checked_server(ready: Callable) -> type:
    """The class of transformers' server with what this module adds; `ready` is called when the model is loaded.

    With `non_blocking` its constructor calls `start_server`, which here serves in the same thread: Ctrl-C reaches it.
    """
    from fastapi.responses import JSONResponse
    from jinja2 import TemplateError
    from transformers.cli.serve import Serve

    def refused(message: str) -> dict:
        return {"message": message, "type": "invalid_request_error", "param": "chat_template_kwargs", "code": None}

    async def template_refuses(_, error: TemplateError) -> JSONResponse:
        return JSONResponse({"error": refused(str(error))}, status_code=400)

    class Checked(Serve):
        def start_server(self):
            self.server.config.app.add_exception_handler(TemplateError, template_refuses)
            [loaded] = self._model_manager.loaded_models.values()
            sample(loaded.model.generation_config)
            handle = self._chat_handler.handle_request

            async def checked(body: dict, request_id: str):
                try:
                    body["chat_template_kwargs"] = asked(body, loaded.processor.chat_template)
                except ValueError as error:
                    return JSONResponse({"error": refused(str(error))}, status_code=400)
                return await handle(body, request_id)

            self._chat_handler.handle_request = checked
            # Its own list is the Hub's cache, of which a server that is bound to one model serves nothing.
            about = {"id": self._model_manager.force_model, "object": "model", "owned_by": "rlred", "created": 0}
            self._model_manager.get_gen_models = lambda: [about]
            ready()
            self.server.run()

    return Checked


def asked(body: dict, template: str | dict) -> dict:
    """The variables of a request; OpenAI's `reasoning_effort` is one of them. Raises `ValueError` for one unread."""
    told = template_settings(body.get("chat_template_kwargs"))
    effort = body.pop("reasoning_effort", None)
    if effort is not None:
        told.setdefault("reasoning_effort", effort)
    check_read(template, told)
    return told


def sample(config) -> None:
    """Makes a generation config sample, from the whole distribution, where it does not say how.

    Without this the server decodes greedily at every temperature; at 0 it does so by itself.
    """
    if not config.do_sample:
        config.do_sample, config.top_k, config.top_p = True, 0, 1.0
