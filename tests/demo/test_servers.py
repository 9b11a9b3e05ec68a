"""Starting, waiting for and stopping a server, with small scripts in the place of an engine."""

import os
import re
import sys
import time

import pytest

from specdec.demo.servers import Server, free_port
from specdec.engines.command import ServerCommand
from specdec.errors import SpecdecError

READY = """
import http.server, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(self.path.encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY
DYING = "raise RuntimeError('the head does not fit')"


def server(program: str, folder, timeout: float = 20) -> Server:
    port = free_port()
    command = ServerCommand([sys.executable, "-c", program, str(port)], {"SPECDEC_TEST": "1"})
    return Server(command, port, folder / "logs" / "server.log", timeout)


def printed_pid(running: Server) -> int:
    """The process id that the script printed; its own source stands in the log too."""
    found = re.search(r"^child (\d+)$", running.log.read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1))


def gone(pid: int) -> bool:
    """Ended, or ended and waiting to be collected by init."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("program", [READY, STUBBORN])
def test_nothing_is_left_after_the_block(tmp_path, program):
    """The engine's own processes go with the server, even where it ignores being asked."""
    running = server(program, tmp_path)
    with running:
        assert running.metrics() == "/metrics" and running.seconds_to_ready > 0
        child = printed_pid(running)
        assert not gone(child)
        stop, running.stop = running.stop, lambda: stop(patience=0.5)
    deadline = time.monotonic() + 5
    while not gone(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(child)


def test_stopped_when_the_block_fails(tmp_path):
    running = server(READY, tmp_path)
    with pytest.raises(KeyError), running:
        pid = running._process.pid
        raise KeyError
    assert gone(pid)


def test_a_server_that_dies_is_reported_with_its_last_words(tmp_path):
    with pytest.raises(SpecdecError, match=r"status 1.*the head does not fit"), server(DYING, tmp_path):
        pytest.fail("never ready")


def test_a_server_that_is_never_ready_is_stopped(tmp_path):
    silent = server("import os, time; print('child', os.getpid(), flush=True); time.sleep(600)", tmp_path, timeout=0.8)
    with pytest.raises(SpecdecError, match="not ready after 1 s"), silent:
        pytest.fail("never ready")
    assert gone(printed_pid(silent))


def test_the_log_begins_with_the_command(tmp_path):
    with pytest.raises(SpecdecError), server(DYING, tmp_path) as dying:
        pytest.fail(str(dying))
    assert (tmp_path / "logs" / "server.log").read_text().startswith("$ SPECDEC_TEST=1 ")
    assert os.environ.get("SPECDEC_TEST") is None
