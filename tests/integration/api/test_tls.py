#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Off the machine only TLS, and only who shows a good certificate or token. Certificates are made with openssl here.
import hashlib, os, shutil, socket, ssl, subprocess, sys, tempfile, time
import bed
bed.take_daemon_argument()
if not shutil.which('openssl'):
    print('skipped: no openssl program')
    sys.exit(77)


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Authority:
    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        run('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', f'/CN={name}',
            '-addext', 'basicConstraints=critical,CA:TRUE', '-keyout', self.path('key'), '-out', self.path('pem'))

    def path(self, end):
        return f'{self.folder}/{self.name}.{end}'

    def issue(self, name, usage, days=2, more='', backdate=False):
        base = f'{self.folder}/{self.name}-{name}'
        with open(base + '.ext', 'w') as f:
            f.write(f'extendedKeyUsage={usage}\n{more}')
        run('openssl', 'req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', f'/CN={name}', '-keyout', base + '.key', '-out', base + '.csr')
        if backdate:
            with open(base + '.cnf', 'w') as f:
                f.write(f'[ca]\ndefault_ca=d\n[d]\ndatabase={base}.db\nnew_certs_dir={self.folder}\nserial={base}.serial\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n')
            open(base + '.db', 'w').close()
            with open(base + '.serial', 'w') as f:
                f.write('77\n')
            run('openssl', 'ca', '-batch', '-config', base + '.cnf', '-cert', self.path('pem'), '-keyfile', self.path('key'), '-in', base + '.csr', '-out', base + '.pem', '-notext',
                '-startdate', '20200101000000Z', '-enddate', '20200201000000Z', '-extfile', base + '.ext')
        else:
            run('openssl', 'x509', '-req', '-in', base + '.csr', '-CA', self.path('pem'), '-CAkey', self.path('key'), '-CAcreateserial', '-days', str(days), '-out', base + '.pem', '-extfile', base + '.ext')
        return base + '.pem', base + '.key'


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def digest(token):
    return hashlib.sha256(token.encode()).hexdigest()


class Tls(bed.Case):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix='coracle-tls-')
        os.chmod(cls.folder, 0o755)
        cls.ca, cls.other = Authority(cls.folder, 'ca'), Authority(cls.folder, 'other')
        cls.server = cls.ca.issue('server', 'serverAuth', more='subjectAltName=IP:127.0.0.1\n')
        cls.good = cls.ca.issue('client', 'clientAuth')
        cls.foreign = cls.other.issue('client', 'clientAuth')
        cls.expired = cls.ca.issue('old', 'clientAuth', backdate=True)
        cls.wrong_use = cls.ca.issue('not-a-client', 'serverAuth')
        cls.tokens = cls.folder + '/tokens'
        cls.write_tokens()
        cls.port = free_port()
        cls.config = (f'listen = 127.0.0.1:{cls.port}\ntls_cert = {cls.server[0]}\ntls_key = {cls.server[1]}\n'
                      f'tls_client_ca = {cls.ca.path("pem")}\ntoken_file = {cls.tokens}\n')
        super().setUpClass()

    @classmethod
    def write_tokens(cls, *more):
        with open(cls.tokens + '.new', 'w') as f:
            f.write('# tokens\n' + f'ops:{digest("secret-one")}\n' + f'old:{digest("secret-old")}:1000000000\n' + f'later:{digest("secret-later")}:99999999999\n' + ''.join(m + '\n' for m in more))
        os.rename(cls.tokens + '.new', cls.tokens)

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.folder)

    def connect(self, cert=None, port=None):
        context = ssl.create_default_context(cafile=self.ca.path('pem'))
        if cert:
            context.load_cert_chain(*cert)
        sock = socket.create_connection(('127.0.0.1', port or self.port), 10)
        return bed.Connection(context.wrap_socket(sock, server_hostname='127.0.0.1'))

    def ask(self, cert=None, headers=(), target='/v1/version'):
        c = self.connect(cert)
        try:
            return c.call('GET', target, headers=headers)
        finally:
            c.close()

    def test_certificate(self):
        self.expect(self.ask(self.good), 200)

    def test_bad_certificates(self):
        for cert in (self.foreign, self.expired, self.wrong_use):
            try:
                a = self.ask(cert)
            except (OSError, EOFError):
                continue  # ended in the handshake
            self.expect(a, 401, 'UNAUTHORIZED')

    def test_bad_certificate_and_good_token(self):
        """A certificate that is not good is not made good by a token."""
        try:
            self.expect(self.ask(self.foreign, ['Authorization: Bearer secret-one']), 401, 'UNAUTHORIZED')
        except (OSError, EOFError):
            pass

    def test_tokens(self):
        self.expect(self.ask(headers=['Authorization: Bearer secret-one']), 200)
        self.expect(self.ask(headers=['Authorization: bearer secret-later']), 200)
        for value in ('Bearer wrong', 'Bearer secret-old', 'Bearer ', 'Bearer', 'Basic c2VjcmV0LW9uZTo=', 'secret-one', 'Bearer secret-one,', 'Bearer ' + 'x' * 5000, 'Bearer ' + digest('secret-one')):
            a = self.expect(self.ask(headers=['Authorization: ' + value]), 401, 'UNAUTHORIZED')
            self.assertIn('Bearer', a.headers['www-authenticate'])
            self.assertNotIn(value.split()[-1] if len(value) > 20 else '\0', a.body.decode())

    def test_nothing_without_credentials(self):
        for target in ('/v1/version', '/v1/health', '/v1/metrics', '/v1/openapi.yaml', '/v1/instances', '/nothing'):
            self.expect(self.ask(target=target), 401, 'UNAUTHORIZED')
        c = self.connect()
        a = c.call('POST', '/v1/instances', {'technology': 'fake', 'image': 'none', 'name': 'sneaked'})
        self.expect(a, 401, 'UNAUTHORIZED')
        c.close()
        self.expect(self.daemon.call('GET', '/v1/instances/sneaked'), 404)

    def test_tokens_are_withdrawn_at_once(self):
        self.write_tokens('new:' + digest('secret-new'))
        self.expect(self.ask(headers=['Authorization: Bearer secret-new']), 200)
        c = self.connect()
        self.assertEqual(c.call('GET', '/v1/version', headers=['Authorization: Bearer secret-new']).status, 200)
        self.write_tokens()
        self.assertEqual(c.call('GET', '/v1/version', headers=['Authorization: Bearer secret-new']).status, 401)
        c.close()
        with open(self.tokens, 'a') as f:
            f.write('this is no token\n')
        self.expect(self.ask(headers=['Authorization: Bearer secret-one']), 401)
        self.write_tokens()
        self.expect(self.ask(headers=['Authorization: Bearer secret-one']), 200)

    def test_plain_http_gets_nothing(self):
        with socket.create_connection(('127.0.0.1', self.port), 10) as s:
            s.sendall(b'GET /v1/version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret-one\r\n\r\n')
            data = b''
            try:
                while piece := s.recv(1000):
                    data += piece
            except OSError:
                pass
        self.assertNotIn(b'HTTP', data)

    def test_old_protocols_are_refused(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers('ALL:@SECLEVEL=0')
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(('127.0.0.1', self.port), 10) as s, self.assertRaises((ssl.SSLError, OSError)):
            context.wrap_socket(s)

    def test_exec_and_events_over_tls(self):
        import test_streams_client as streams
        self.daemon.create('remote')
        c = self.connect(self.good)
        c.send('POST', '/v1/instances/remote/exec', {'command': ['echo', 'far away']}, headers=['Connection: Upgrade', 'Upgrade: coracle-stream'])
        self.assertEqual(c.head()[0], 101)
        s = streams.Stream.__new__(streams.Stream)
        s.c = c
        frames = [s.read(), s.read()]
        self.assertEqual(frames[0], (1, b'far away\n'))
        self.assertEqual(frames[1], (3, b'{"exit":{"status":0}}'))
        c.close()
        c = self.connect(self.good)
        c.send('GET', '/v1/events?follow=true&since=0')
        self.assertEqual(c.head()[0], 200)
        text, chunks = b'', c.chunks()
        while b'event: instance.created' not in text:
            text += next(chunks)
        before = self.daemon.fds()
        c.close()
        for _ in range(30):
            time.sleep(0.1)
            if self.daemon.fds() < before:
                break
        self.assertLess(self.daemon.fds(), before)

    def test_silent_connections_leave_room(self):
        held = [socket.create_connection(('127.0.0.1', self.port), 10) for _ in range(1200)]
        start = time.monotonic()
        self.expect(self.ask(self.good), 200)
        self.assertLess(time.monotonic() - start, 3)
        for s in held:
            s.close()

    def test_memory(self):
        self.ask(self.good)
        total, private = self.daemon.memory()
        print(f'resident with TLS: {total >> 10} KiB, {private >> 10} KiB private', file=sys.stderr)


class Refusals(bed.unittest.TestCase):
    def test_no_listener_without_encryption_or_authentication(self):
        folder = tempfile.mkdtemp(prefix='coracle-tls-')
        ca = Authority(folder, 'ca')
        cert, key = ca.issue('server', 'serverAuth')
        tokens, bad = folder + '/tokens', folder + '/bad'
        with open(tokens, 'w') as f:
            f.write('a:' + digest('x') + '\n')
        with open(bad, 'w') as f:
            f.write('a:secret-in-the-clear\n')
        listen = f'listen = 127.0.0.1:{free_port()}\n'
        pair = f'tls_cert = {cert}\ntls_key = {key}\n'
        for config, words in ((listen, 'tls_cert'), (listen + pair, 'authenticate'), (listen + f'token_file = {tokens}\n', 'tls_cert'),
                              (listen + pair + f'token_file = {folder}/absent\n', 'absent'), (listen + pair + f'token_file = {bad}\n', 'line 1'),
                              (listen + f'tls_cert = {key}\ntls_key = {cert}\ntoken_file = {tokens}\n', 'TLS'), ('listen = nowhere\n' + pair + f'token_file = {tokens}\n', 'nowhere')):
            with self.assertRaises(AssertionError) as caught:
                bed.Daemon(config)
            self.assertIn(words, str(caught.exception), config)
            self.assertNotIn('secret-in-the-clear', str(caught.exception))
        shutil.rmtree(folder)


if __name__ == '__main__':
    bed.unittest.main(verbosity=2)
