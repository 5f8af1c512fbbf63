"""More than one host: the network by which they find each other, a folder that all see, and what is said of a lost one.

A collective waits for a host that is lost without a word as long as `ddp_timeout` says, a day by default, since one
process may work alone for long (rlred/runs/devices.py). So the first process of each host keeps a connection to the
main process and says every few seconds that it is there. Where one side gets nothing for `PATIENCE` seconds, or the
connection breaks off without a farewell, every host ends with one line. All others, and a run on one host, have nothing
of this.
"""

import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import psutil
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

logger = logging.getLogger(__name__)

EVERY = 5.0  # seconds between two signs of life
PATIENCE = 60.0  # seconds without one, after which a host is lost
GRACE = 10.0  # seconds in which a process whose own error ends it may say so first
HERE, FAREWELL, LOST = "here", "farewell", "lost"  # the first words of a line on a connection


def several() -> bool:
    """Whether this process is one of a launch over several hosts, by what torchrun tells each process."""
    told = [os.environ.get(name) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")]
    return all(told) and int(told[0]) > int(told[1])


def own_address(port: int = 9) -> str:
    """The address of this host at which the main process's host finds it. Nothing is sent."""
    family, kind, _, _, there = socket.getaddrinfo(os.environ["MASTER_ADDR"], port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(there)
        return probe.getsockname()[0]


def choose_interface() -> None:
    """Has gloo use the network that reaches the main process's host, where the user names none.

    By itself gloo takes the address of the host's name, which is often that of the loopback: no other host reaches it.
    """
    if not several() or os.environ.get("GLOO_SOCKET_IFNAME"):
        return
    try:
        own = own_address()
    except OSError:
        return  # the rendezvous will say so
    names = [name for name, found in psutil.net_if_addrs().items() if own in (one.address for one in found)]
    if names:
        os.environ["GLOO_SOCKET_IFNAME"] = names[0]


def check_shared(folder: Path, read: Callable[[], dict | None]) -> None:
    """Raises `ValueError`, on every host, where one of them does not see in `folder` what the main process wrote there.

    `read` gives what a process sees. A network file system may show it late, so that it is read for a minute.
    """
    told = [read()]
    broadcast_object_list(told)
    deadline = time.monotonic() + PATIENCE
    while not (seen := read() == told[0]) and time.monotonic() < deadline:
        time.sleep(0.5)
    blind = sorted({name for name in gather_object([None if seen else socket.gethostname()]) if name})
    if blind:
        raise ValueError(
            f"output_dir={str(folder)!r}: {', '.join(blind)} does not see what the main process's host writes there; "
            "name a folder of a file system that all hosts share"
        )


class Watch:
    """Connections between the main process's host, which listens, and the others; threads that end with the process.

    `lost` is called once, with the name of a host that is gone, unless this process has left before. `secret` is known
    to the processes of the run: a connection that does not begin with it is none of theirs, and is closed.
    """

    def __init__(
        self,
        secret: str,
        lost: Callable[[str], None],
        every: float = EVERY,
        patience: float = PATIENCE,
        grace: float = GRACE,
    ):
        self.secret, self.lost = secret, lost
        self.every, self.patience, self.grace = every, patience, grace
        self.left, self.reported = threading.Event(), False
        self.connections: list[socket.socket] = []
        self.lock = threading.Lock()

    def listen(self, hosts: int, address: str) -> int:
        """Waits, in a thread, for so many other hosts; the port."""
        listener = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
        listener.settimeout(self.patience)
        threading.Thread(target=self._accept, args=(listener, hosts), daemon=True).start()
        return listener.getsockname()[1]

    def _accept(self, listener: socket.socket, hosts: int) -> None:
        try:
            while len(self.connections) < hosts:
                connection = listener.accept()[0]
                connection.settimeout(self.patience)
                lines = connection.makefile("r", encoding="utf-8", errors="replace")
                if lines.readline(100).strip() == self.secret:
                    self._begin(connection, lines)
                else:
                    connection.close()
        except OSError:
            logger.warning("not every host reached this one; one that is lost may be noticed late")

    def join(self, address: str, port: int) -> None:
        """Connects to the main process's host; one that cannot be reached is a warning."""
        try:
            connection = socket.create_connection((address, port), timeout=self.patience)
            connection.sendall(f"{self.secret}\n".encode())
        except OSError as error:
            logger.warning("%s:%d cannot be reached (%s); a lost host may be noticed late", address, port, error)
        else:
            self._begin(connection, connection.makefile("r", encoding="utf-8"))

    def _begin(self, connection: socket.socket, lines: TextIO) -> None:
        self.connections.append(connection)
        threading.Thread(target=self._speak, args=(connection,), daemon=True).start()
        threading.Thread(target=self._hear, args=(connection, lines), daemon=True).start()

    def _speak(self, connection: socket.socket) -> None:
        try:
            while not self.left.is_set():
                self._say(connection, f"{HERE} {socket.gethostname()}")
                self.left.wait(self.every)
        except OSError:
            pass  # whoever listens finds it

    def _say(self, connection: socket.socket, line: str) -> None:
        with self.lock:  # a line whole, or not at all
            connection.sendall(f"{line}\n".encode())

    def _hear(self, connection: socket.socket, lines: TextIO) -> None:
        name = connection.getpeername()[0]
        try:
            for line in lines:
                word, _, rest = line.strip().partition(" ")
                if word == FAREWELL:
                    return
                name = rest or name
                if word == LOST:
                    break
            else:
                self.left.wait(self.grace)  # broken off; where this process ends by an error of its own, that says more
        except OSError:
            pass  # silent for too long
        self._report(name)

    def _report(self, name: str) -> None:
        with self.lock:
            first, self.reported = not self.reported, True
        if first and not self.left.is_set():
            self._tell(f"{LOST} {name}")
            self.lost(name)

    def _tell(self, line: str) -> None:
        for connection in self.connections:
            try:
                self._say(connection, line)
            except OSError:
                pass  # gone as well

    def leave(self, farewell: bool) -> None:
        """Ends the watch; without a `farewell` the other hosts find that this one is gone."""
        self.left.set()
        if farewell:
            self._tell(FAREWELL)


_watch: Watch | None = None


def watch(say: Callable[[str], None]) -> None:
    """Begins to watch the other hosts of this run. Where one is lost, `say` is told so, and the process is ended.

    It is ended from a thread, since it may itself wait in a collective that never returns. Every process takes part;
    the first of each host keeps the watch.
    """
    global _watch
    if not several() or _watch is not None:
        return

    def lost(name: str) -> None:
        try:
            say(f"the host {name} is lost: its connection broke off, or nothing came from it for {PATIENCE:.0f} s")
            sys.stderr.flush()
        finally:
            os._exit(1)

    state, told = PartialState(), [None, 0, secrets.token_hex()]
    if state.is_main_process:
        own = Watch(told[2], lost)
        hosts = state.num_processes // int(os.environ["LOCAL_WORLD_SIZE"]) - 1
        told[:2] = own_address(), own.listen(hosts, own_address())
    broadcast_object_list(told)
    if not state.is_main_process and state.is_local_main_process:
        own = Watch(told[2], lost)
        own.join(*told[:2])
    _watch = own if state.is_local_main_process else None


def leave(farewell: bool) -> None:
    """Ends the watch of this process, if there is one."""
    if _watch is not None:
        _watch.leave(farewell)
