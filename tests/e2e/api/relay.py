# SPDX-License-Identifier: Apache-2.0
# Against a running platform (argument: its api.sock, an instance with busybox): bytes through exec in both directions
# with back-pressure, terminal, signals, a client that leaves, attach. Called by run-exec.sh.
import hashlib, json, os, socket, struct, sys, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../integration/api'))
import bed
import test_streams_client as streams

SOCKET, NAME = sys.argv[1], sys.argv[2]


class Host:
    def connect(self, timeout=30):
        s = socket.socket(socket.AF_UNIX)
        s.connect(SOCKET)
        return bed.Connection(s, timeout)


def start(body):
    s = streams.Stream(Host(), f'/v1/instances/{NAME}/exec', body)
    assert s.status == 101, (s.status, s.problem())
    return s


def check(what, good, seen=''):
    print('ok  ' if good else 'FAIL', what, '' if good else seen)
    if not good:
        sys.exit(1)


def bulk():
    data = os.urandom(1 << 20) * 24
    s = start({'command': ['/bin/busybox', 'cat'], 'stdin': True})

    def feed():
        for at in range(0, len(data), 60000):
            s.send(streams.frame(0, data[at:at + 60000]))
        s.send(streams.frame(0, b''))
    begin = time.monotonic()
    threading.Thread(target=feed).start()
    out, err, end = s.until_end()
    took = time.monotonic() - begin
    check(f'24 MiB through cat come back whole ({24 / took:.0f} MiB/s)', hashlib.sha256(out).digest() == hashlib.sha256(data).digest(), (len(out), err, end))
    check('its status', end == {'exit': {'status': 0}}, end)


def slow_reader():
    s = start({'command': ['/bin/busybox', 'sh', '-c', 'yes | head -c 8000000; echo done >&2']})
    time.sleep(1)  # the process fills what there is and must wait
    out, err, end = s.until_end()
    check('a slow client gets everything', (len(out), err, end) == (8000000, b'done\n', {'exit': {'status': 0}}), (len(out), err, end))


def deaf_process():
    s = start({'command': ['/bin/busybox', 'sleep', '1000'], 'stdin': True})
    s.c.sock.settimeout(1)
    sent = 0
    try:
        while sent < 64 << 20:
            s.c.sock.sendall(streams.frame(0, b'x' * 60000))
            sent += 60000
    except (socket.timeout, TimeoutError):
        pass
    check('a process that does not read stops its client', sent < 4 << 20, sent)
    s.close()


def signals():
    s = start({'command': ['/bin/busybox', 'sleep', '1000']})
    s.send(streams.frame(3, {'signal': 'SIGTERM'}))
    end = s.until_end()[2]
    check('a signal ends it', end == {'exit': {'signal': 'SIGTERM'}}, end)


def terminal():
    s = start({'command': ['/bin/busybox', 'sh', '-c', 'stty size; read x; echo got $x; tty'], 'tty': True, 'stdin': True})
    s.send(streams.frame(3, {'resize': [91, 17]}), streams.frame(0, b'words\n'))
    out, _, end = s.until_end()
    check('a terminal', b'got words\r\n' in out and b'/dev/pts/' in out and end == {'exit': {'status': 0}}, (out, end))


def leaver():
    mark = 'sleep 31337'
    s = start({'command': ['/bin/busybox'] + mark.split()})
    time.sleep(0.3)
    s.close()
    for _ in range(50):
        time.sleep(0.1)
        s = start({'command': ['/bin/busybox', 'ps']})
        out = s.until_end()[0]
        if mark.encode() not in out:
            break
    check('what a client leaves behind ends (SIGHUP)', mark.encode() not in out, out)


for case in (bulk, slow_reader, deaf_process, signals, terminal, leaver):
    case()
