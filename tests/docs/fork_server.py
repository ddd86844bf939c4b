"""Runs `recon3d` commands in forks of one process that has imported everything, which takes longer than most of them.

`serve` is that process. The `recon3d` that the copy of the repository has in its environment is `CLIENT`: it hands its
arguments, folder, environment and standard streams to the server, and ends with the status that the command ended with.
What runs is `recon3d.cli.main`, as with the real entry point, in a process of its own.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

CLIENT = """#!{python} -S
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(server, [b"x"], [1, 2])
    server.sendall(json.dumps(request).encode() + b"\\n")
    answer = server.makefile().readline()
sys.exit(int(answer) if answer else "the server of the commands is gone")
"""


def serve(address: str) -> None:
    """Answer requests until killed; prints a line when it is ready."""
    import recon3d.apps.predict
    import recon3d.bench.runner
    import recon3d.cli
    import recon3d.commands
    import recon3d.evaluation.evaluator  # noqa: F401

    for path in (Path(__file__).parents[2] / "recon3d").glob("*/*.py"):
        if path.parent.name in ("methods", "data") and path.stem != "__main__":
            __import__(f"recon3d.{path.parent.name}.{path.stem}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                if os.fork():  # the grandchild is nobody's child to wait for
                    os._exit(0)
                _answer(connection)
            connection.close()
            os.wait()


def _answer(connection: socket.socket) -> None:
    """Become the command of a request; never returns."""
    _, streams, *_ = socket.recv_fds(connection, 1, 2)
    with connection.makefile() as lines:
        request = json.loads(lines.readline())
    for stream, number in zip(streams, (1, 2), strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.modules["__main__"].__spec__ = None  # who starts this program again, as DDP does, takes sys.argv
    sys.argv = [str(Path(sys.executable).parent / "recon3d"), *request["arguments"]]
    status = _run(request["arguments"])
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(f"{status}\n".encode())
    os._exit(status)


def _run(arguments: list[str]) -> int:
    import atexit
    import traceback

    from recon3d.cli import main

    try:
        status = main(arguments)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # what the interpreter would do at the end of a script
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    return status


if __name__ == "__main__":
    serve(sys.argv[1])
