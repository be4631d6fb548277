# SPDX-License-Identifier: Apache-2.0
# A coracled of its own for each test case (technology fake, no launcher, no root needed) and an HTTP client that sends
# what it is told, byte by byte. Used by the tests of the REST layer; run with python3 from Debian.
import atexit, json, os, shutil, signal, socket, subprocess, sys, tempfile, time, unittest

DAEMON = os.environ.get('CORACLED', '')


def take_daemon_argument():
    """The first argument is the daemon's path; the rest is unittest's."""
    global DAEMON
    if len(sys.argv) > 1 and os.path.isfile(sys.argv[1]):
        DAEMON = sys.argv.pop(1)
    if not DAEMON:
        sys.exit('usage: TEST CORACLED [CASE...]')


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f'{self.status} {self.body[:300]!r}'


class Connection:
    """One HTTP/1.1 connection over any connected socket."""

    def __init__(self, sock, timeout=10):
        self.sock = sock
        self.sock.settimeout(timeout)
        self.rest = b''

    def fill(self):
        piece = self.sock.recv(65536)
        self.rest += piece
        return bool(piece)

    def line(self):
        while b'\r\n' not in self.rest:
            if not self.fill():
                raise EOFError('connection ended inside of the headers, have %r' % self.rest[:200])
        line, self.rest = self.rest.split(b'\r\n', 1)
        return line

    def exactly(self, n):
        data, self.rest = bytearray(self.rest[:n]), self.rest[n:]
        while len(data) < n:
            piece = self.sock.recv(min(1 << 20, n - len(data)))
            if not piece:
                raise EOFError('connection ended inside of the body')
            data += piece
        return bytes(data)

    def head(self):
        status = int(self.line().split()[1])
        headers = {}
        while True:
            line = self.line()
            if not line:
                return status, headers
            key, value = line.decode('latin1').split(':', 1)
            headers[key.lower()] = value.strip()

    def chunks(self):
        while True:
            size = int(self.line().split(b';')[0], 16)
            data = self.exactly(size)
            self.line()
            if not size:
                return
            yield data

    def answer(self, method='GET'):
        status, headers = self.head()
        if status == 100:
            status, headers = self.head()
        body = b''
        if method == 'HEAD' or status in (101, 204, 304):
            pass
        elif headers.get('transfer-encoding') == 'chunked':
            body = b''.join(self.chunks())
        elif 'content-length' in headers:
            body = self.exactly(int(headers['content-length']))
        return Answer(status, headers, body)

    def send(self, method, target, body=None, kind='application/json', headers=()):
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        lines = [f'{method} {target} HTTP/1.1', 'Host: coracle', *headers]
        if body is not None:
            lines += [f'Content-Type: {kind}', f'Content-Length: {len(body)}']
        try:
            self.sock.sendall('\r\n'.join(lines).encode('latin1') + b'\r\n\r\n' + (body or b''))
        except BrokenPipeError:
            pass  # answered before the body was read: the answer is there

    def call(self, method, target, body=None, kind='application/json', headers=()):
        self.send(method, target, body, kind, headers)
        return self.answer(method)

    def close(self):
        self.sock.close()


class Daemon:
    def __init__(self, config='', env=None):
        self.dir = tempfile.mkdtemp(prefix='coracle-api-')
        os.chmod(self.dir, 0o755)
        self.run, self.state = self.dir + '/run', self.dir + '/state'
        os.mkdir(self.run)
        os.mkdir(self.state)
        self.config = self.dir + '/coracled.conf'
        self.socket = self.run + '/api.sock'
        self.process = None
        atexit.register(self.remove)
        self.start(config)

    def start(self, config):
        with open(self.config, 'w') as f:
            f.write(config)
        with open(self.dir + '/log', 'ab') as log:
            self.process = subprocess.Popen(
                [DAEMON, '--run-dir', self.run, '--state-dir', self.state, '--config', self.config, '--user', 'root'],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        for _ in range(200):
            try:
                self.connect().close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        raise AssertionError('coracled does not serve: ' + self.words())

    def words(self):
        with open(self.dir + '/log', errors='replace') as f:
            return f.read()[-3000:]

    def connect(self, timeout=10):
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(self.socket)  # blocking: while the queue is full it waits for its turn
        except OSError:
            s.close()
            raise
        return Connection(s, timeout)

    def call(self, method, target, body=None, kind='application/json', headers=(), timeout=10):
        c = self.connect(timeout)
        try:
            return c.call(method, target, body, kind, headers)
        finally:
            c.close()

    def raw(self, data, timeout=10):
        """Sends bytes, returns what comes until the end or the first whole answer."""
        c = self.connect(timeout)
        try:
            c.sock.sendall(data)
            return c.answer()
        finally:
            c.close()

    def create(self, name, **more):
        a = self.call('POST', '/v1/instances', {'name': name, 'technology': 'fake', 'image': 'none', **more})
        assert a.status == 202, a
        return self.wait(a.json['operation']['id'])

    def wait(self, operation):
        return self.call('GET', f'/v1/operations/{operation}?wait_ms=10000', timeout=15).json

    def memory(self):
        """Resident bytes: all, and private ones."""
        with open(f'/proc/{self.process.pid}/status') as f:
            values = dict(l.split(':', 1) for l in f if ':' in l)
        return [int(values[k].split()[0]) * 1024 for k in ('VmRSS', 'RssAnon')]

    def sanitized(self):
        """Built with AddressSanitizer: memory and time say nothing then."""
        with open(f'/proc/{self.process.pid}/maps') as f:
            return 'libasan' in f.read()

    def cpu(self):
        """Seconds of processor time."""
        with open(f'/proc/{self.process.pid}/schedstat') as f:
            return int(f.read().split()[0]) / 1e9

    def fds(self):
        return len(os.listdir(f'/proc/{self.process.pid}/fd'))

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        return self.process.returncode if self.process else None

    def remove(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Case(unittest.TestCase):
    """One daemon for the cases of a class; it must be alive, and end well, after them."""
    config = ''

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls.config)

    @classmethod
    def tearDownClass(cls):
        alive = cls.daemon.process.poll()
        code = cls.daemon.stop()
        words = cls.daemon.words()
        cls.daemon.remove()
        assert alive is None, f'coracled ended on the way ({alive}): {words}'
        assert code == 0, f'coracled ended with {code}: {words}'

    def expect_memory(self, private_max):
        """The daemon's private memory stays below."""
        if not self.daemon.sanitized():
            self.assertLess(self.daemon.memory()[1], private_max)

    def expect(self, answer, status, code=None):
        self.assertEqual(answer.status, status, answer)
        if code:
            self.assertEqual(answer.headers['content-type'], 'application/problem+json')
            self.assertEqual(answer.json['code'], code, answer)
            self.assertEqual(answer.json['status'], status)
            self.assertTrue(answer.json['detail'])
        return answer
