"""A Python that has its libraries loaded already: for scripts that start a dozen commands, each of which would take
seconds to load them.

``serve`` loads libraries and then runs each command in a fork of itself; ``run`` stands where a script expects a
Python, hands the command over and ends with its exit status. A command sees its own arguments, folder, environment and
standard streams, and is killed with its ``run``.

    python tests/helpers/warm_python.py serve SOCKET LIBRARY...        until its standard input closes; says "ready"
    python tests/helpers/warm_python.py run SOCKET SCRIPT [ARGUMENTS]  like python SCRIPT [ARGUMENTS]
"""

import json
import os
import socket
import sys
from contextlib import suppress


def start(connection, path, descriptors, arguments, folder, environment):
    """Has a command started over a new connection, which it does not outlive."""
    connection.connect(str(path))
    job = json.dumps({"arguments": arguments, "folder": str(folder), "environment": dict(environment)}).encode()
    socket.send_fds(connection, [len(job).to_bytes(8, "little")], descriptors)
    connection.sendall(job)


def status_of(connection):
    """The exit status of what was started, or 128 and the signal that killed it; waits for it."""
    answer = connection.recv(1)
    return answer[0] if answer else 1


def kill(connection):
    """Has what was started killed, with the processes of its group -> its status, as status_of()."""
    connection.shutdown(socket.SHUT_WR)
    return status_of(connection)


def serve(path, libraries):
    import importlib
    import selectors

    for library in libraries:
        importlib.import_module(library)
    selector, running = selectors.DefaultSelector(), {}
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                for pid, *_ in running.values():
                    _kill(pid)
                os._exit(0)  # libraries take long to take leave
            if key.fileobj is listener:
                connection = listener.accept()[0]
                pid = _start(connection, listener)
                ended = os.pidfd_open(pid)
                running[connection] = running[ended] = pid, connection, ended
                selector.register(connection, selectors.EVENT_READ)
                selector.register(ended, selectors.EVENT_READ)
            elif key.fileobj in running:
                pid, connection, ended = running[key.fileobj]
                if key.fileobj is connection:  # its `run` is gone, or wants it killed
                    _kill(pid)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with suppress(OSError):
                    connection.sendall(bytes([status if status >= 0 else 128 - status]))
                for file in (connection, ended):
                    selector.unregister(file)
                    del running[file]
                connection.close()
                os.close(ended)


def _kill(pid):
    with suppress(ProcessLookupError):
        os.killpg(pid, 9)


def _start(connection, listener):
    """Forks for the command that the connection brings -> its process id; its processes are a group of that id."""
    size, descriptors, *_ = socket.recv_fds(connection, 8, 3)
    content = b""
    while len(content) < int.from_bytes(size, "little"):
        content += connection.recv(1 << 20)
    pid = os.fork()
    if pid:
        os.setpgid(pid, pid)
        for descriptor in descriptors:
            os.close(descriptor)
        return pid
    os.setpgid(0, 0)
    listener.close()
    connection.close()
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
        os.close(descriptor)
    os._exit(_command(**json.loads(content)))


def _command(arguments, folder, environment):
    import atexit
    import runpy
    import threading
    import traceback

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
    status = 0
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3:])
    else:
        with socket.socket(socket.AF_UNIX) as connection:
            start(connection, sys.argv[2], [0, 1, 2], sys.argv[3:], os.getcwd(), os.environ)
            status = status_of(connection)
        if status == 128 + 9:  # killed like the command
            os.kill(os.getpid(), 9)
        sys.exit(status)
