"""Two hosts: network namespaces with a link between them; one of them is lost in the middle, and the run goes on.

The slow tests need root and `ip netns`; the others speak over this machine's loopback.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from rlred import hosts
from rlred.heartbeat import read
from rlred.output import external_failure, last_checkpoint
from tests.paths import ROOT
from tests.test_distributed import HINDSIGHT, WHOLE, differences, finished, losses, start, with_traces_of

CLOSED = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.77.0.2]:20621. GLHF!"
WAITED = "[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for recv"


@pytest.mark.parametrize(
    "error, said",
    [
        (RuntimeError(CLOSED), "another process of this run on the host 10.77.0.2 is gone"),
        (RuntimeError(CLOSED.replace("10.77.0.2", "fd00::2")), "on the host fd00::2 is gone"),
        (RuntimeError(WAITED), "another process of this run was waited for longer than ddp_timeout; it is gone, or"),
        (RuntimeError("NCCL error: ncclRemoteError: A call failed possibly due to a network error"), "is gone"),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), None),
        (RuntimeError("gloo: tensors must have the same shape on every process"), None),
        (KeyError(CLOSED), None),
    ],
)
def test_a_process_that_is_gone_is_named_and_nothing_else_is_taken_for_it(error, said):
    found = external_failure(error)
    assert found is None if said is None else said in found


@pytest.fixture
def watched():
    """A function that makes a watch whose losses are kept in a list."""
    made = []

    def make(secret="mine", patience=0.6):
        lost = []
        watch = hosts.Watch(secret, lost.append, every=0.1, patience=patience, grace=0.2)
        made.append(watch)
        return SimpleNamespace(watch=watch, lost=lost)

    yield make
    for watch in made:
        watch.leave(farewell=True)


def until(happens, seconds=10):
    deadline = time.monotonic() + seconds
    while not happens() and time.monotonic() < deadline:
        time.sleep(0.02)
    return happens()


def test_hosts_that_speak_are_not_lost_and_a_farewell_is_no_loss(watched):
    main, other = watched(patience=5), watched(patience=5)
    other.watch.join("127.0.0.1", main.watch.listen(1, "127.0.0.1"))
    time.sleep(0.5)
    other.watch.leave(farewell=True)
    time.sleep(0.5)
    assert main.lost == [] and other.lost == []


def test_a_silent_host_is_lost(watched):
    main = watched()
    with socket.create_connection(("127.0.0.1", main.watch.listen(1, "127.0.0.1"))) as silent:
        silent.sendall(b"mine\nhere the silent one\n")
        assert until(lambda: main.lost == ["the silent one"])


def test_a_host_that_breaks_off_is_lost_and_all_others_are_told_which(watched):
    main, other = watched(patience=5), watched(patience=5)
    port = main.watch.listen(2, "127.0.0.1")
    other.watch.join("127.0.0.1", port)
    with socket.create_connection(("127.0.0.1", port)) as broken:
        broken.sendall(b"mine\nhere the broken one\n")
        assert until(lambda: len(main.watch.connections) == 2)
        time.sleep(0.3)
        assert main.lost == []
    assert until(lambda: main.lost == ["the broken one"]) and until(lambda: other.lost == ["the broken one"])


def test_trap_a_connection_of_somebody_else_ends_no_run(watched):
    """Ports of a cluster are scanned."""
    main, other = watched(patience=2), watched(patience=2)
    port = main.watch.listen(1, "127.0.0.1")
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff\x00\n", b"x" * 5000):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(said)
    other.watch.join("127.0.0.1", port)
    assert until(lambda: len(main.watch.connections) == 1)
    time.sleep(0.5)
    assert main.lost == [] and other.lost == []


def test_a_host_that_cannot_be_reached_is_a_warning(watched, caplog):
    one = watched()
    one.watch.join("127.0.0.1", 9)
    assert one.lost == [] and "127.0.0.1:9 cannot be reached" in caplog.text


def test_the_network_is_that_which_reaches_the_main_host(monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    hosts.choose_interface()
    assert "GLOO_SOCKET_IFNAME" not in os.environ  # one host
    told = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "mine"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    hosts.choose_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "mine"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    hosts.choose_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    monkeypatch.setenv("MASTER_ADDR", "no-such-host.invalid")
    hosts.choose_interface()
    assert "GLOO_SOCKET_IFNAME" not in os.environ
    monkeypatch.delenv("MASTER_ADDR")  # not torchrun's
    assert not hosts.several()


def test_a_folder_that_one_host_does_not_see_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, "PATIENCE", 1.0)
    late = iter([{"pid": 1}, None, {"pid": 1}])  # of the main process; not yet; then seen
    hosts.check_shared(tmp_path, lambda: next(late))
    never = iter([{"pid": 1}])
    with pytest.raises(ValueError, match="does not see what the main process's host writes there; name a folder of"):
        hosts.check_shared(tmp_path, lambda: next(never, None))


# The slow ones -------------------------------------------------------------------------------------------------------

FLAGS = "--max_steps 10 --num_generations 4 --num_questions 64 --logging_steps 1 --hindsight false --evaluate false"
FLAGS += " --learning_rate 0.002 --warmup_steps 0 --per_device_train_batch_size 8 --save_steps 2"


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True)


@pytest.fixture(scope="module")
def network():
    """Two namespaces with a link between them, 10.77.0.1 and 10.77.0.2; their names."""
    names = [f"rlred-{os.getpid()}-{number}" for number in (0, 1)]
    try:
        made = [ip("netns", "add", name) for name in names]
    except OSError as error:
        pytest.skip(f"network namespaces cannot be made here: {error}")
    if any(one.returncode for one in made):
        pytest.skip(f"network namespaces cannot be made here (root?): {made[0].stderr.strip()}")
    try:
        first, second = names
        ends = ["veth0", "netns", first, "type", "veth", "peer", "name", "veth0", "netns", second]
        assert ip("link", "add", *ends).returncode == 0
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "veth0")
            for device in ("lo", "veth0"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


class Host:
    """A launch in a namespace, under a host's name of its own; what it says is read as it comes."""

    def __init__(self, name: str, rank: int, folder, *flags: str, own_disk: bool = False, **environment: str):
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
        launch += ["accelerate_configs/multi_node_cpu.yaml", "--machine_rank", str(rank)]
        launch += ["--main_process_ip", "10.77.0.1", "tests/sampled_by_row.py", *FLAGS.split(" ")]
        launch += ["--output_dir", str(folder), *flags]
        mount = f"mount -t tmpfs none {folder.parent}; " if own_disk else ""
        within = ["ip", "netns", "exec", name, "unshare", "--uts", "--mount", "sh", "-c"]
        within += [f'hostname host{rank}; {mount}exec "$@"', "sh", *launch]
        offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            within,
            cwd=ROOT,
            env={**os.environ, **offline, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.said: list[str] = []
        self.reader = threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True)
        self.reader.start()

    def kill(self) -> None:
        """As a host that loses its power: every process at once."""
        if self.process.poll() is None:
            for pid in self.pids():
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def pids(self) -> list[int]:
        """The launcher and all that it has started: torchrun gives each worker a session of its own."""
        found = [self.process.pid]
        for pid in found:
            asked = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
            found += map(int, asked.stdout.split())
        return found

    def errors(self) -> list[str]:
        """What the recipe says; a progress bar may stand before it in its line."""
        self.reader.join(10)
        return [line[line.index("error: ") :].strip() for line in self.said if "error: " in line]

    def ended(self, seconds: float = 300) -> int:
        return self.process.wait(seconds)


@pytest.fixture
def launch(network):
    """A function that starts a run on both hosts; none is left behind."""
    started = []

    def both(folder, *flags, own_disk=False, **environment):
        for rank, name in enumerate(network):
            started.append(Host(name, rank, folder, *flags, own_disk=own_disk and rank == 1, **environment))
        return started[-2:]

    yield both
    for host in started:
        host.kill()
    ip("-n", network[1], "link", "set", "veth0", "up")


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """Loss, reward and gradient norm of ten steps in one process."""
    return losses(tmp_path_factory.mktemp("one"), "cpu", 16)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["killed", "cut off"])
def test_a_host_that_is_lost_is_one_line_and_the_run_goes_on(way, network, launch, one_process, tmp_path):
    folder = tmp_path / "run"
    first, second = launch(folder)
    assert until(lambda: (folder / "checkpoint-4" / "trainer_state.json").exists() or first.process.poll(), 400)
    begin = time.monotonic()
    if way == "killed":
        second.kill()
    else:
        ip("-n", network[1], "link", "set", "veth0", "down")
    assert first.ended() == 1
    seconds = time.monotonic() - begin
    [line] = first.errors()
    print(f"{way}: the first host ended after {seconds:.0f} s with: {line}")
    last = last_checkpoint(folder)
    assert ("host1 is lost" in line or "on the host 10.77.0.2 is gone" in line) and seconds < 150
    assert line.endswith(f"--output_dir {folder} --resume_from_checkpoint true goes on from {last}")
    assert not [said for said in first.said if 'File "/' in said and "/rlred/" in said]  # no traceback of ours
    assert read(folder)["state"] == "failed" and read(folder)["error"] in line
    if way == "cut off":
        assert second.ended() == 1 and "host0 is lost" in second.errors()[0]  # cut off from the other side
        ip("-n", network[1], "link", "set", "veth0", "up")
    second.kill()

    done = int(last.rpartition("-")[2])
    for host in launch(folder, "--resume_from_checkpoint", "true", FIRST_BATCH=str(done)):
        assert host.ended() == 0, "".join(host.said)[-3000:]
    assert (folder / "adapter_model.safetensors").exists() and read(folder)["state"] == "finished"
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    two = [(entry["loss"], entry["reward"], entry["grad_norm"]) for entry in history if "reward" in entry]
    assert len(one_process) == len(two) == 10
    worst = [max(abs(a[i] - b[i]) for a, b in zip(one_process, two, strict=True)) for i in range(3)]
    print(f"{way}, gone on from step {done}: largest difference to one process:", *(f"{one:.1e}" for one in worst))
    assert worst[0] < 1e-4 and worst[1] < 1e-4 and worst[2] < 1e-3


@pytest.mark.slow
def test_a_whole_run_on_two_hosts_is_that_of_one_process(launch, tmp_path):
    """From the base's sweep over the hindsight start and RL to the report."""
    one, two = tmp_path / "one", tmp_path / "two"
    finished(start("cpu", one, 16), one)
    with_traces_of(one, two)
    flags = [*WHOLE.split(" "), "--hindsight", "true", "--evaluate", "true", "--per_device_train_batch_size", "8"]
    for host in launch(two, *flags, "--hindsight_settings", json.dumps(HINDSIGHT)):
        assert host.ended(1200) == 0, "".join(host.said)[-3000:]
    assert (two / "adherence.md").exists() and read(two)["state"] == "finished"
    found = differences(one, two)
    print("two hosts: largest differences to one process:", {name: f"{value:.1e}" for name, value in found.items()})
    assert found["start"] < 1e-4 and found["loss"] < 1e-4 and found["reward"] < 1e-4


@pytest.mark.slow
def test_trap_a_folder_on_a_disk_of_each_host_is_refused_on_both(launch, tmp_path):
    for host in launch(tmp_path / "disk" / "run", own_disk=(tmp_path / "disk").mkdir() is None):
        assert host.ended() in (1, 2)
        [line] = host.errors()
        assert "host1 does not see what the main process's host writes there" in line
