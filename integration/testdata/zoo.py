# A program that keeps each item in as many places as the kernel offers, and
# tells over TCP what it finds there. "add X" and "content" are answered by one
# line each.
import ctypes, errno, fcntl, json, mmap, os, queue, resource, select, signal
import socket, struct, sys, termios, threading, time

libc = ctypes.CDLL(None, use_errno=True)
os.makedirs("/srv/zoo", exist_ok=True)
os.chdir("/srv/zoo")
os.umask(0o027)
os.nice(5)


def check(n):
    if n < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return n


def pending(fd):
    b = fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4)
    return struct.unpack("i", b)[0]


# Signals: two blocked in every thread, one taken by a signalfd, one stays pending.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
mask = (ctypes.c_ulong * 16)(1 << (signal.SIGUSR1 - 1))
sigfd = check(libc.signalfd(-1, mask, 0o4000))
os.kill(os.getpid(), signal.SIGUSR2)
handled = 0


def on_hup(*_):
    global handled
    handled += 1


signal.signal(signal.SIGHUP, on_hup)

# Processes: a child that echoes what it is told over pipes and keeps its own
# list, a grandchild that counts in shared memory, and one that is dead.
shared = mmap.mmap(-1, 4096)
to_child, from_child = os.pipe(), os.pipe()
to_grandchild = os.pipe()
lockfile = os.open("lock", os.O_RDWR | os.O_CREAT)
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    if os.fork() == 0:
        os.setsid()
        while os.read(to_grandchild[0], 1):
            shared[0:4] = struct.pack("I", struct.unpack("I", shared[0:4])[0] + 1)
        os._exit(0)
    mine = []
    for line in os.fdopen(to_child[0]):
        verb, _, what = line.strip().partition(" ")
        answer = ""
        if verb == "add":
            mine.append(what)
            os.write(to_grandchild[1], b"x")
        elif verb == "list":
            answer = ",".join(mine)
        elif verb == "locks":
            # Another open file description, so that the parent's locks hold.
            fd = os.open("lock", os.O_RDWR)
            for name, call in (("flock", fcntl.flock), ("fcntl", lambda f, how: fcntl.lockf(f, how, 10, 5))):
                try:
                    call(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    answer += name + " free "
                except OSError as e:
                    answer += name + " " + errno.errorcode[e.errno] + " "
            os.close(fd)
        os.write(from_child[1], (answer + "\n").encode())
    os._exit(0)
dead = os.fork()
if dead == 0:
    os._exit(7)
child_answers = os.fdopen(from_child[0])


def child_asked(question):
    os.write(to_child[1], (question + "\n").encode())
    return child_answers.readline().strip()


fcntl.flock(lockfile, fcntl.LOCK_EX)
fcntl.lockf(lockfile, fcntl.LOCK_EX, 10, 5)

# Threads: workers with queues, a lock and a condition; one sleeps for ever.
boxes = [queue.Queue() for _ in range(3)]
lists = [[] for _ in boxes]
local = threading.local()


def work(n):
    local.mine = lists[n]
    while True:
        item, done = boxes[n].get()
        local.mine.append(item)
        done.set()


for n in range(len(boxes)):
    threading.Thread(target=work, args=(n,), daemon=True).start()
condition = threading.Condition()
threading.Thread(target=lambda: condition.acquire() and condition.wait(), daemon=True).start()

# Files: kept open, deleted, deleted under one of two names, mapped, sparse, in
# /dev/shm, memfd.
plain = open("plain", "a+")
gone = open("gone", "w+")
os.unlink("gone")
half = open("half", "w+")
os.link("half", "half2")
os.unlink("half")
huge = os.open("huge", os.O_RDWR | os.O_CREAT)
os.ftruncate(huge, 1 << 30)
mapped_file = open("mapped", "w+b")
mapped_file.truncate(1 << 20)
mapped = mmap.mmap(mapped_file.fileno(), 1 << 20)
shm_file = open("/dev/shm/zoo", "w+b")
shm_file.truncate(4096)
shm = mmap.mmap(shm_file.fileno(), 4096)
memfd = os.memfd_create("zoo")
private = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
directory = os.open(".", os.O_DIRECTORY)

# What holds data on its way: pipe, FIFO, socket pair, datagrams, pty, eventfd,
# message and semaphore of System V.
pipe = os.pipe()
os.mkfifo("fifo")
fifo = os.open("fifo", os.O_RDWR)
pair = socket.socketpair()
dgram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
dgram.bind("dgram")
dgram_client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
dgram_client.connect("dgram")
unix_door = socket.socket(socket.AF_UNIX)
unix_door.bind("\0zoo")
unix_door.listen()
unix_client = socket.socket(socket.AF_UNIX)
unix_client.connect("\0zoo")
unix_server = unix_door.accept()[0]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 9999))
pty_master, pty_slave = os.openpty()
event = os.eventfd(0, os.EFD_NONBLOCK)
IPC_CREAT, IPC_PRIVATE, SETVAL, GETVAL = 0o1000, 0, 16, 12
msgq = check(libc.msgget(IPC_PRIVATE, IPC_CREAT | 0o600))
sem = check(libc.semget(IPC_PRIVATE, 1, IPC_CREAT | 0o600))
libc.shmat.restype = ctypes.c_void_p
sysv = libc.shmat(check(libc.shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0o600)), None, 0)

# Watchers: a timer that ticks, an inotify on a directory, all in one epoll.
os.mkdir("watched")
timer = check(libc.timerfd_create(1, 0o4000))
check(libc.timerfd_settime(timer, 0, (ctypes.c_long * 4)(0, 20_000_000, 0, 20_000_000), None))
inotify = check(libc.inotify_init1(0o4000))
check(libc.inotify_add_watch(inotify, b"watched", 0x100))  # IN_CREATE
ticks = signals = created = 0
door = socket.create_server(("", 7001))
poll = select.epoll()
for fd in (door.fileno(), timer, inotify, sigfd):
    poll.register(fd, select.EPOLLIN)
clients = {}
count = 0


class Msg(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_long), ("n", ctypes.c_uint)]


def add(item):
    global count
    count += 1
    one = (item + "\n").encode()
    done = [threading.Event() for _ in boxes]
    for box, d in zip(boxes, done):
        box.put((item, d))
    child_asked("add " + item)
    for f in (plain, gone, half):
        f.write(item + "\n")
        f.flush()
    os.pwrite(huge, one, (1 << 30) - 64 * count)
    mapped[64 * count:64 * count + len(one)] = one
    private[64 * count:64 * count + len(one)] = one
    shm[0:4] = struct.pack("I", count)
    os.write(memfd, one)
    for fd in (pipe[1], fifo, pair[0].fileno(), unix_client.fileno(), pty_master):
        os.write(fd, b"x\n")
    if count % 20 == 0:
        dgram_client.send(one)  # a queue of ten is the kernel's default
    os.eventfd_write(event, 1)
    if count % 10 == 0:
        check(libc.msgsnd(msgq, ctypes.byref(Msg(1, count)), 4, 0))
    check(libc.semctl(sem, 0, SETVAL, count))
    ctypes.memmove(sysv, struct.pack("I", count), 4)
    open("watched/" + item, "w").close()
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGHUP)
    for d in done:
        if not d.wait(10):
            return "a thread does not work"
    want = (signals + 1, created + 1)
    for _ in range(200):
        if (signals, created) == want:
            break
        once(0.05, False)
    else:
        return "signalfd, inotify: %r, not %r" % ((signals, created), want)
    return "ok"


def counted(fd):
    n = os.eventfd_read(fd) if pending_event(fd) else 0
    if n:
        os.eventfd_write(fd, n)
    return n


def pending_event(fd):
    return bool(select.select([fd], [], [], 0)[0])


def whole(f):
    f.flush()
    return os.pread(f.fileno(), 1 << 20, 0).decode().split()


def content():
    end = time.monotonic() + 5
    before = ticks
    while ticks < before + 2 and time.monotonic() < end:
        once(0.05, False)
    while struct.unpack("I", shared[0:4])[0] != count and time.monotonic() < end:
        time.sleep(0.01)
    info = os.waitid(os.P_PID, dead, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return json.dumps({
        "count": count, "ticking": ticks >= before + 2, "signals": signals, "handled": handled, "created": created,
        "pending": [s.name for s in signal.sigpending()], "threads": threading.active_count(), "lists": lists,
        "child": child_asked("list"), "locks": child_asked("locks"), "grandchild": struct.unpack("I", shared[0:4])[0],
        "dead": info.si_status, "plain": whole(plain), "gone": whole(gone), "half": whole(half),
        "gone nlink": os.fstat(gone.fileno()).st_nlink, "half nlink": os.fstat(half.fileno()).st_nlink,
        "positions": [f.tell() for f in (plain, gone, half)], "huge": huge_items(),
        "mapped": mapped[:].replace(b"\0", b"").decode().split(), "mapped file": open("mapped", "rb").read().replace(b"\0", b"").decode().split(),
        "private": private[:].replace(b"\0", b"").decode().split(), "shm": struct.unpack("I", shm[0:4])[0],
        "memfd": os.pread(memfd, 1 << 20, 0).decode().split(), "pipe": pending(pipe[0]), "fifo": pending(fifo), "pair": pending(pair[1]),
        "unix": pending(unix_server), "dgram": pending(dgram), "pty": pending(pty_slave), "event": counted(event),
        "sem": check(libc.semctl(sem, 0, GETVAL)), "sysv": ctypes.cast(sysv, ctypes.POINTER(ctypes.c_uint))[0],
        "files": listed(), "watched": sorted(os.listdir("watched")), "cwd": os.getcwd(), "umask": umask(),
        "nice": os.nice(0), "limits": resource.getrlimit(resource.RLIMIT_CORE), "pids": [os.getpid(), child, os.getpgid(child)],
        "flags": fcntl.fcntl(inotify, fcntl.F_GETFL), "cloexec": fcntl.fcntl(event, fcntl.F_GETFD),
    }, sort_keys=True)


def huge_items():
    n = min(count, 200)
    return [os.pread(huge, 64, (1 << 30) - 64 * i).rstrip(b"\0").decode().strip() for i in range(1, n + 1)]


def listed():
    # Rewound, because a btrfs directory lists what it had when it was opened or
    # rewound, and the names of sockets are made anew by a restore.
    os.lseek(directory, 0, os.SEEK_SET)
    return sorted(os.listdir(directory))


def umask():
    old = os.umask(0)
    os.umask(old)
    return old


def serve(fd):
    conn = clients[fd]
    line = conn.readline()
    if not line:
        poll.unregister(fd)
        del clients[fd]
        return
    verb, _, what = line.strip().partition(" ")
    try:
        answer = add(what) if verb == "add" else content()
    except Exception as e:
        answer = "%s: %r at line %d" % (verb, e, e.__traceback__.tb_lineno)
    conn.write(answer + "\n")
    conn.flush()


def once(timeout, all_of_them=True):
    global ticks, signals, created
    for fd, _ in poll.poll(timeout):
        try:
            if fd == timer:
                ticks += struct.unpack("Q", os.read(timer, 8))[0]
            elif fd == sigfd:
                signals += len(os.read(sigfd, 128 * 16)) // 128
            elif fd == inotify:
                created += events(os.read(inotify, 4096))
            elif not all_of_them:
                continue
            elif fd == door.fileno():
                conn, _ = door.accept()
                clients[conn.fileno()] = conn.makefile("rw")
                poll.register(conn.fileno(), select.EPOLLIN)
            else:
                serve(fd)
        except BlockingIOError:
            pass
        except OSError:
            if fd not in clients:
                raise
            poll.unregister(fd)
            del clients[fd]


def events(b):
    n = 0
    while b:
        b = b[16 + struct.unpack("I", b[12:16])[0]:]
        n += 1
    return n


while True:
    once(-1)
