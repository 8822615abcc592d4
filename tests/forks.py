"""Run `capivara`, or Python code, in a process that starts at once: a fork of a server that has all imports.

A fork has its own file descriptors, environment, working folder, signals and exit code. Only the imports are shared,
which otherwise take four seconds each time; the server has computed nothing, so torch works in its forks. Tests of the
start-up and of pipes use a new process instead: `conftest.command`.
"""

from __future__ import annotations

import itertools
import json
import os
import pty
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CAPIVARA = "from capivara_cli.commands import main; main()"

# Answers a line of JSON with a number: {"start": ...} with the fork's process id, {"wait": ...} with its exit code.
SERVER = """
import accelerate, bitsandbytes, matplotlib.pyplot, open_clip, peft, sklearn.metrics, torch, torchvision.transforms.v2
import googletrans, transformers, webdataset
import capivara_cli.captioning.blip2, capivara_cli.captioning.caption, capivara_cli.evaluation.classify_eval
import capivara_cli.evaluation.retrieve_eval, capivara_cli.scoring.report
import capivara_cli.exporting.export, capivara_cli.importing.import_data, capivara_cli.scoring.score
import capivara_cli.training.merge_lora, capivara_cli.training.train
import capivara_cli.translation.google, capivara_cli.translation.local, capivara_cli.translation.translate
import json, os, resource, sys, traceback
import capivara_cli.commands

def run(code, arguments, cwd, env, files, largest):
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, path in enumerate(files):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND if number else os.O_RDONLY), number)
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    sys.argv = ["capivara", *arguments]
    exec(compile(code, "code", "exec"), {"__name__": "__main__"})

def start(**process):
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        run(**process)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

for line in sys.stdin:
    request = json.loads(line)
    if "start" in request:
        print(start(**request["start"]), flush=True)
    else:
        print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
"""


@dataclass
class Fork:
    """A running process."""

    pid: int
    files: list[Path]  # its standard input, output and error
    server: Forks
    returncode: int | None = None

    def is_running(self) -> bool:
        """Whether it has not ended; a zombie has."""
        return (
            self.returncode is None and Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end, and return exit code, standard output and standard error."""
        if self.returncode is None:
            self.returncode = self.server.ask(wait=self.pid)
        out, error = (path.read_text(encoding="utf-8") if path.is_file() else "" for path in self.files[1:])
        return subprocess.CompletedProcess([], self.returncode, out, error)


class Forks:
    """The server, and its forks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers = itertools.count()
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}  # code may import the tests' modules
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **request: Any) -> int:
        """Send the server a request, and return its answer."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        assert select.select([self.server.stdout], [], [], 240)[0], f"no answer to {request}"
        return int(self.server.stdout.readline())

    def start(
        self,
        arguments: Sequence[str | Path | int],
        cwd: Path,
        *,
        code: str = CAPIVARA,
        env: dict[str, str] | None = None,
        stdin: str = "",
        terminal: str | None = None,
        largest: int | None = None,
    ) -> Fork:
        """Start a process.

        Args:
            arguments: `sys.argv[1:]`.
            cwd: working folder.
            code: what it runs.
            env: changes of the environment.
            stdin: content of standard input.
            terminal: path of a terminal, which is standard input, output and error.
            largest: bytes that a file may have: as on a full disk, a write fails half way.
        """
        files = [self.folder / f"{name}{next(self.numbers)}" for name in ("stdin", "stdout", "stderr")]
        for path, content in zip(files, (stdin, "", ""), strict=True):
            path.write_text(content, encoding="utf-8")
        files = [Path(terminal)] * 3 if terminal else files
        process = {
            "code": code,
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd),
            "env": dict(os.environ) | (env or {}),
            "files": [str(path) for path in files],
            "largest": largest,
        }
        return Fork(self.ask(start=process), files, self)

    def run(self, arguments: Sequence[str | Path | int], cwd: Path, **how: Any) -> subprocess.CompletedProcess[str]:
        """Start a process as `start` does, and wait for its end."""
        return self.start(arguments, cwd, **how).wait()

    def run_in_terminal(self, arguments: Sequence[str | Path | int], cwd: Path) -> str:
        """Run `capivara` in a pseudo-terminal, and return all that it sends to the screen."""
        controller, terminal = pty.openpty()
        process = self.start(arguments, cwd, terminal=os.ttyname(terminal))
        seen = b""
        while select.select([controller], [], [], 0.02)[0] or process.is_running():
            if select.select([controller], [], [], 0)[0]:
                seen += os.read(controller, 65536)
        os.close(terminal)
        os.close(controller)
        assert process.wait().returncode in (0, 1), seen
        return seen.decode()

    def run_ranks(
        self, arguments: Sequence[str | Path | int], cwd: Path, *, ranks: int = 2, **how: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run as many processes as torchrun would, with the environment that it sets; return what all of them wrote."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
        processes = [
            self.start(arguments, cwd, env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, **how)
            for rank in range(ranks)
        ]
        ended = [process.wait() for process in processes]
        return subprocess.CompletedProcess(
            [],
            max(abs(process.returncode) for process in ended),
            "".join(process.stdout for process in ended),
            "".join(process.stderr for process in ended),
        )

    def close(self) -> None:
        """End the server."""
        self.server.communicate()
