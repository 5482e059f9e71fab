"""``python -I -S ask.py SOCKET ARGUMENTS``: as ``python ARGUMENTS``, forked by `serve.py`. Imports next to nothing."""

import json
import os
import signal
import socket
import sys

PASSED_ON = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}

path, *arguments = sys.argv[1:]
signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until it is known to whom
with socket.socket(socket.AF_UNIX) as server:
    server.connect(path)
    asked = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
    text = json.dumps(asked).encode() + b"\n"
    sent = socket.send_fds(server, [text], [0, 1, 2])
    server.sendall(text[sent:])
    answers = server.makefile()
    pid = int(answers.readline())
    for number in PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: os.kill(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    for descriptor in range(3):
        os.close(descriptor)  # whoever reads them waits for the process alone
    code = int(answers.readline())
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
