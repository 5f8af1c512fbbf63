"""A vLLM server that restarts: what its answers count for. Real HTTP; the weights are a word that a push hands over."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

requests = pytest.importorskip("requests", reason="TRL's client of a vLLM server needs requests, which vLLM brings")

from trl.generation.vllm_client import VLLMClient  # noqa: E402

from rlred.evaluation.vllm_restart import Server, WeightsLost  # noqa: E402
from rlred.output import external_failure  # noqa: E402


class Handler(BaseHTTPRequestHandler):
    """Answers with the weights that it holds; those of a new server are the base's."""

    def do_GET(self):
        known = {"/said": {"said": self.server.weights}, **({"/health": {}} if self.server.healthy else {})}
        if self.server.versions:
            known["/weight_info"] = {"weight_version": self.server.version}
        self.answer(known.get(self.path))

    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/push":
            self.server.weights = told["weights"]
        elif self.server.versions:
            self.server.version = told["new_version"]
        self.answer({} if self.path == "/push" or self.server.versions else None)

    def answer(self, contents: dict | None) -> None:
        body = json.dumps(contents or {}).encode()
        self.send_response(404 if contents is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Client(VLLMClient):
    """TRL's, without vLLM's imports and NCCL."""

    def __init__(self, port: int):
        self.session, self.base_url, self.communicator = requests.Session(), f"http://127.0.0.1:{port}", None
        self.connections = 0

    def init_communicator(self, device):
        self.connections += 1


class Setting:
    """A server that can go and come back, and this run's end of it."""

    def __init__(self, versions: bool = True):
        self.versions, self.port, self.pushes = versions, 0, 0
        self.start()
        self.client = Client(self.port)
        self.server = Server(self.client, seconds=0)

    def start(self):
        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.http.weights, self.http.version, self.http.versions = "base", "default", self.versions
        self.http.healthy = True
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()

    def restart(self):
        self.stop()
        self.start()

    def push(self):
        self.pushes += 1
        self.client.session.post(f"{self.client.base_url}/push", json={"weights": "policy"}).raise_for_status()

    def said(self) -> str:
        return self.client.session.get(f"{self.client.base_url}/said").json()["said"]


@pytest.fixture
def setting():
    made = Setting()
    yield made
    with contextlib.suppress(OSError):
        made.stop()


def test_an_answer_of_the_weights_that_were_given_is_taken_at_once(setting):
    setting.server.give(setting.push, alone=True)
    assert setting.server.ask(setting.said) == "policy"
    assert (setting.pushes, setting.client.connections) == (1, 0)


def test_trap_a_server_that_has_restarted_between_two_questions_would_answer_as_the_base(setting, caplog):
    setting.server.give(setting.push, alone=True)
    setting.restart()
    assert setting.said() == "base"  # the trap is there
    assert setting.server.ask(setting.said) == "policy"
    assert (setting.pushes, setting.client.connections) == (2, 1)
    assert "has restarted: it is given the weights again" in caplog.text


def test_trap_an_answer_counts_only_if_the_server_still_had_the_weights_after_it(setting):
    setting.server.give(setting.push, alone=True)
    answers = []

    def question():
        if not answers:
            setting.restart()  # TRL's client asks on by itself
        answers.append(setting.said())
        return answers[-1]

    assert setting.server.ask(question) == "policy"
    assert answers == ["base", "policy"]


def test_a_push_to_a_server_that_has_restarted_goes_over_a_new_connection(setting):
    for pushes in (1, 2):
        setting.server.give(setting.push, alone=True)
        assert (setting.pushes, setting.client.connections) == (pushes, pushes - 1)
        setting.restart()


def test_where_every_process_takes_part_in_a_push_the_run_ends_with_a_line(setting):
    setting.server.give(setting.push, alone=False)
    setting.restart()
    with pytest.raises(WeightsLost, match="has restarted, and this process cannot give it the weights again") as found:
        setting.server.ask(setting.said)
    assert external_failure(found.value) == str(found.value)


def test_another_process_knows_the_weights_by_their_version(setting):
    other = Server(Client(setting.port), seconds=0)
    setting.server.give(setting.push, alone=True)
    other.read()
    assert other.ask(setting.said) == "policy"
    setting.restart()
    setting.server.ask(setting.said)  # the main process gives them again
    with pytest.raises(WeightsLost):
        other.ask(setting.said)  # what it had sampled meanwhile may be the base's


def test_a_server_that_does_not_come_back_is_an_error_and_one_that_does_is_waited_for(setting, caplog):
    setting.server.give(setting.push, alone=True)
    setting.stop()
    with pytest.raises(ConnectionError, match="did not come back within 0 s") as found:
        setting.server.ask(setting.said)
    assert f"http://127.0.0.1:{setting.port} did not come back" in external_failure(found.value)
    assert "does not answer; waiting up to 0 s (vllm_server_timeout) for it" in caplog.text
    setting.server.seconds = 60
    threading.Timer(0.3, setting.start).start()
    assert setting.server.ask(setting.said) == "policy"


def test_trap_a_server_that_answers_with_an_error_is_not_waited_for_without_end(setting):
    setting.server.give(setting.push, alone=True)
    setting.http.healthy = False  # as vLLM's whose engine is dead: its check of health is an error

    def question():
        raise requests.ConnectionError("broken off")

    with pytest.raises(ConnectionError, match="did not come back within 0 s"):
        setting.server.ask(question)


def test_a_server_that_goes_again_and_again_is_given_up(setting):
    setting.server.give(setting.push, alone=True)
    with pytest.raises(WeightsLost, match="goes again and again"):
        setting.server.ask(lambda: setting.restart())


def test_what_is_no_lost_connection_is_raised_at_once(setting):
    setting.server.give(setting.push, alone=True)
    with pytest.raises(ValueError, match="too long"):
        setting.server.ask(lambda: (_ for _ in ()).throw(ValueError("too long")))
    assert setting.pushes == 1


def test_a_server_without_versions_is_asked_as_trl_asks_it():
    setting = Setting(versions=False)
    setting.server.give(setting.push, alone=True)
    assert setting.server.ask(setting.said) == "policy"
    setting.restart()
    assert setting.server.ask(setting.said) == "base"  # nobody can tell
    setting.stop()
