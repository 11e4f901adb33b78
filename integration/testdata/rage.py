"""Goes crazy in every way at once, when /rage is there; held back by nothing but limits."""

import errno
import mmap
import os
import signal
import time

MIB = 1 << 20
FILL_AFTER = 34  # seconds


def start(what):
    pid = os.fork()
    if pid == 0:
        try:
            what()
        except BaseException as e:
            print(what.__name__, e, flush=True)
        os._exit(0)
    return pid


def spin():
    os.nice(19)  # so that the others get far enough to meet their limits
    while True:
        pass


def write():
    out = os.open("/written", os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o600)
    block = mmap.mmap(-1, MIB // 32)
    block.write(b"x" * len(block))
    while True:
        for at in range(0, 4 * MIB, len(block)):
            try:
                os.pwrite(out, block, at)
            except OSError as e:
                if e.errno != errno.EDQUOT:
                    raise
                time.sleep(0.1)


def fill():
    time.sleep(FILL_AFTER)  # then little can be written any more
    with open("/filled", "wb", buffering=0) as out:
        while True:
            try:
                out.write(b"z" * (MIB // 16))
            except OSError as e:
                if e.errno != errno.EDQUOT:
                    raise
                os.fsync(out.fileno())  # what was taken is charged when it is on disk
                time.sleep(0.5)


def eat():
    eaten = []
    while True:
        eaten.append(b"x" * MIB)


def idle():
    time.sleep(0.5)


def fork():
    while True:
        try:
            start(idle)
        except OSError:
            pass  # there may be no more


signal.signal(signal.SIGCHLD, signal.SIG_IGN)
open("/ready", "w").close()
while not os.path.exists("/rage"):
    time.sleep(0.02)
for _ in range(8):
    start(spin)
for _ in range(4):
    start(write)
start(fill)
eater = start(eat)
start(fork)
while True:
    time.sleep(0.1)
    try:
        os.kill(eater, 0)
    except OSError:
        try:
            eater = start(eat)
        except OSError:
            pass  # the forks were faster
