"""Run `capivara` in a process that starts at once: a fork of a server that has all imports and has computed nothing.

A fork has its own file descriptors, environment, working folder and exit code. Only the imports are shared, which
otherwise take four seconds each time. Tests of the start-up, of signals and of pipes use a new process instead:
`conftest.command`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SERVER = """
import accelerate, open_clip, peft, torch, torchvision.transforms.v2, transformers
import capivara_cli.captioning.blip2, capivara_cli.captioning.caption, capivara_cli.evaluation.retrieve_eval
import capivara_cli.exporting.export, capivara_cli.importing.import_data, capivara_cli.scoring.score
import capivara_cli.training.merge_lora, capivara_cli.training.train
import capivara_cli.translation.local, capivara_cli.translation.translate
import json, os, sys, traceback
from capivara_cli.commands import main

def run(arguments, cwd, env, files):
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, path in enumerate(files):
        os.dup2(os.open(path, os.O_WRONLY if number else os.O_RDONLY), number)
    sys.argv = ["capivara", *arguments]
    main()

for line in sys.stdin:
    child = os.fork()
    if not child:
        code = 1
        try:
            run(**json.loads(line))
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forks:
    """Run `capivara` in forks of one server process, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.files = [folder / name for name in ("stdin", "stdout", "stderr")]
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, arguments: list[str], cwd: Path, env: dict[str, str], stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `capivara`, and return exit code, standard output and standard error."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        for path, content in zip(self.files, (stdin, "", ""), strict=True):
            path.write_text(content, encoding="utf-8")
        request = {"arguments": arguments, "cwd": str(cwd), "env": env, "files": [str(path) for path in self.files]}
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        out, error = (path.read_text(encoding="utf-8") for path in self.files[1:])
        return subprocess.CompletedProcess(arguments, code, out, error)

    def close(self) -> None:
        """End the server."""
        self.server.communicate()
