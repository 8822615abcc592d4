"""`capivara` as a process that starts at once: a fork of one that has imported everything and computed nothing.

It has file descriptors, an environment, a folder and an exit code of its own; only its imports are there already,
which else take four seconds each time. Tests of the start itself, of signals and of pipes begin from nothing:
`conftest.command`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

IMPORTS = """
import accelerate, open_clip, peft, torch, torchvision.transforms.v2, transformers
import capivara_cli.captioning.blip2, capivara_cli.captioning.caption, capivara_cli.evaluation.retrieve_eval
import capivara_cli.exporting.export, capivara_cli.importing.import_data, capivara_cli.scoring.score
import capivara_cli.training.merge_lora, capivara_cli.training.train
import capivara_cli.translation.local, capivara_cli.translation.translate
"""

SERVER = (
    IMPORTS
    + """
import json, os, sys, traceback
from capivara_cli.commands import main

for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setsid()
            os.chdir(asked["cwd"])
            os.environ.clear()
            os.environ.update(asked["env"])
            for number, (path, flags) in enumerate(
                ((asked["stdin"], os.O_RDONLY), (asked["stdout"], os.O_WRONLY), (asked["stderr"], os.O_WRONLY))
            ):
                os.dup2(os.open(path, flags), number)
            sys.argv = ["capivara", *asked["arguments"]]
            main()
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
)


class Forks:
    """Starts processes, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, arguments: list[str], cwd: Path, env: dict[str, str], stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `capivara`, and give back exit code, standard output and error."""
        files = {name: self.folder / name for name in ("stdin", "stdout", "stderr")}
        files["stdin"].write_text(stdin, encoding="utf-8")
        for name in ("stdout", "stderr"):
            files[name].write_bytes(b"")
        asked = {
            "arguments": arguments,
            "cwd": str(cwd),
            "env": env,
            **{name: str(path) for name, path in files.items()},
        }
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(asked) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        out, error = (files[name].read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(arguments, code, out, error)

    def close(self) -> None:
        """Let the server end."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()
