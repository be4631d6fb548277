#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# What a hostile client does to the REST layer. Each case: a clear answer with a stable code where one can be given,
# the connection ended where not, and the daemon serving others as before.
import json, os, resource, socket, struct, sys, threading, time
import bed
bed.take_daemon_argument()

FLOOD = 10000


class Hostile(bed.Case):
    def tearDown(self):
        self.expect(self.daemon.call('GET', '/v1/version'), 200)

    def refused(self, data, status, code=None):
        a = self.daemon.raw(data)
        self.assertEqual(a.status, status, a)
        if code:
            self.assertEqual(a.json['code'], code)
        return a

    def post(self, body, kind='application/json', **more):
        return self.daemon.call('POST', '/v1/instances', body, kind, **more)

    # ---- bodies

    def test_body_that_never_ends(self):
        c = self.daemon.connect(60)
        c.sock.sendall(b'POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n')
        piece = b'10000\r\n' + b' ' * 65536 + b'\r\n'
        sent = 0
        try:
            while sent < 1 << 30:
                c.sock.sendall(piece)
                sent += 65536
        except OSError:
            pass
        self.assertLess(sent, 16 << 20)
        a = c.answer()
        self.expect(a, 413, 'BODY_TOO_LARGE')
        c.close()

    def test_body_announced_too_large(self):
        self.refused(b'POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1048577\r\n\r\n', 413, 'BODY_TOO_LARGE')
        self.refused(b'POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 18446744073709551615\r\n\r\n', 413)
        a = self.daemon.raw(b'POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999999999999999\r\n\r\n')
        self.assertIn(a.status, (400, 413))

    def test_body_at_the_bound(self):
        text = b'{"a":"' + b'x' * ((1 << 20) - 8) + b'"}'
        self.expect(self.post(text), 400, 'UNKNOWN_FIELD')
        self.expect(self.post(text + b' '), 413, 'BODY_TOO_LARGE')

    def test_more_bytes_than_announced(self):
        c = self.daemon.connect()
        c.sock.sendall(b'POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}GARBAGE\r\n\r\n')
        self.assertEqual(c.answer().json['code'], self.post('{}').json['code'])
        try:
            self.assertGreaterEqual(c.answer().status, 400)  # the surplus is a request of its own, and none that exists
        except EOFError:
            pass
        c.close()

    def test_fewer_bytes_than_announced(self):
        before = self.daemon.fds()
        for _ in range(50):
            c = self.daemon.connect()
            c.sock.sendall(b'POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"na')
            c.close()
        time.sleep(0.3)
        self.assertLessEqual(self.daemon.fds(), before + 2)

    def test_malformed_json(self):
        deep = '{"a":' * 100000 + '1' + '}' * 100000
        wide = '[' + ','.join('{}' for _ in range(300000)) + ']'
        for text in ('', '{', '[]', '"x"', 'null', '{"a":1,"a":2}', '{"name":"\\u0000"}', '{"name":"\\ud800"}', b'{"name":"\xff\xfe"}',
                     '{"a":1e999}', '{"a":99999999999999999999}', '{"a":NaN}', '{} {}', deep, wide, b'\0', b'{}\0'):
            self.expect(self.post(text), 400, 'MALFORMED_BODY')
        self.expect_memory(8 << 20)

    def test_malformed_yaml(self):
        bomb = 'a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\n'
        for text in ('', '# nothing', 'a: 1\na: 2', bomb, '<<: {a: 1}', 'a: !!python/object:os.system x', '--- 1\n--- 2', '[' * 100000, '- ' * 50000,
                     'a: "\\0"', b'a: \xff', b'\xff\xfea\0', '? [a]\n: b', '\ta: b', 'a: 1e999', '%FOO\n---\n: :'):
            a = self.post(text, 'application/yaml')
            self.expect(a, 400, 'MALFORMED_BODY')

    def test_yaml_norway(self):
        a = self.post('name: norway\ntechnology: fake\nimage: none\nlabels: {country: no, on: off, octal: "0777"}\nrestart: no\n', 'application/yaml')
        self.assertEqual(a.status, 202, a)
        self.assertEqual(a.json['instance']['labels'], {'country': 'no', 'on': 'off', 'octal': '0777'})
        self.daemon.wait(a.json['operation']['id'])

    def test_media_types(self):
        for kind in ('text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', 'application/jsonx', 'application'):
            self.expect(self.post('{}', kind), 415, 'UNSUPPORTED_MEDIA_TYPE')
        self.refused(b'POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}', 415, 'UNSUPPORTED_MEDIA_TYPE')
        self.refused(b'POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n', 400, 'MALFORMED_BODY')
        self.assertEqual(self.post('{"x":1}', 'APPLICATION/JSON; charset=utf-8').json['code'], 'UNKNOWN_FIELD')
        self.expect(self.daemon.call('GET', '/v1/version', '{}'), 400, 'MALFORMED_BODY')

    # ---- request lines and headers

    def test_path_tricks(self):
        for target, status, code in (
                ('/v1/instances/..%2f', 404, 'INSTANCE_NOT_FOUND'), ('/v1/instances/%2e%2e/images', 404, None), ('/v1/instances/..%2f..%2fetc%2fpasswd', 404, 'INSTANCE_NOT_FOUND'),
                ('/v1/../v1/version', 404, 'ROUTE_NOT_FOUND'), ('//v1/version', 404, 'ROUTE_NOT_FOUND'), ('/v1/version/', 404, 'ROUTE_NOT_FOUND'),
                ('/v1%2fversion', 404, 'ROUTE_NOT_FOUND'), ('/v1/instances/%00', 400, 'INVALID_VALUE'), ('/v1/instances/a%00b', 400, 'INVALID_VALUE'),
                ('/v1/instances/%ff', 400, 'INVALID_VALUE'), ('/v1/instances/%c0%af', 400, 'INVALID_VALUE'), ('/v1/instances/%', 400, 'INVALID_VALUE'),
                ('/v1/instances/' + 'a' * 513, 400, 'INVALID_VALUE'), ('/v1/instances?name=%0d%0aX:y', 400, 'INVALID_VALUE'), ('/v1/images/..%2f..%2f', None, None),
                ('/v1/instances?nam=x', 400, 'UNKNOWN_PARAMETER'), ('/v1/instances?' + 'name=a&' * 65, 400, 'INVALID_VALUE'),
                ('/v1/operations/x?wait_ms=60001', 400, 'INVALID_VALUE'), ('/v1/operations/x?wait_ms=-1', 400, 'INVALID_VALUE'),
                ('/v1/operations/x?wait_ms=1&wait_ms=2', 400, 'INVALID_VALUE'), ("/v1/instances/'%20OR%201=1--", 404, 'INSTANCE_NOT_FOUND')):
            a = self.daemon.call('GET', target)
            self.assertGreaterEqual(a.status, 400, target)
            if status:
                self.assertEqual(a.status, status, f'{target}: {a}')
            if code:
                self.assertEqual(a.json['code'], code, target)

    def test_smuggling(self):
        head = b'POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'
        inner = b'GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n'
        for more in (b'Content-Length: 2\r\nTransfer-Encoding: chunked\r\n', b'Content-Length: 2\r\nContent-Length: 3\r\n', b'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n',
                     b'Transfer-Encoding: xchunked\r\n', b'Transfer-Encoding: chunked, identity\r\n', b'Content-Length: +2\r\n', b'Content-Length: 0x2\r\n', b'Content-Length: -1\r\n',
                     b'Host: y\r\nContent-Length: 2\r\n', b'Content-Length: 2, 2\r\n'):
            c = self.daemon.connect()
            c.sock.sendall(head + more + b'\r\n0\r\n\r\n' + inner)
            try:
                a = c.answer()
                self.assertGreaterEqual(a.status, 400, more)
                with self.assertRaises((EOFError, OSError), msg=more):
                    b = c.answer()
                    print(more, b)
            except (EOFError, OSError):
                pass
            c.close()

    def test_chunk_sizes(self):
        for size in (b'ffffffffffffffff', b'-1', b'zz', b'10000000000000000000', b'', b'2;' + b'x' * 70000):
            c = self.daemon.connect(3)
            try:
                c.sock.sendall(b'POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n' + size + b'\r\n{}\r\n0\r\n\r\n')
                self.assertGreaterEqual(c.answer().status, 400)
            except (EOFError, OSError):
                pass
            c.close()

    def test_huge_headers(self):
        for data in (b'GET /v1/version HTTP/1.1\r\nHost: x\r\nX: ' + b'a' * 100000 + b'\r\n\r\n', b'GET /v1/version HTTP/1.1\r\nHost: x\r\n' + b'X: y\r\n' * 20000 + b'\r\n',
                     b'GET /' + b'a' * 100000 + b' HTTP/1.1\r\nHost: x\r\n\r\n', b'A' * 200000):
            c = self.daemon.connect()
            try:
                c.sock.sendall(data)
            except OSError:
                pass
            try:
                self.assertIn(c.answer().status, (400, 413, 414, 431))
            except (EOFError, OSError):
                pass
            c.close()

    def test_not_http(self):
        for data in (b'\0' * 1000 + b'\r\n\r\n', b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + os.urandom(500), b'GET\r\n\r\n', b'GET /v1/version\r\n\r\n', b'GET /v1/version HTTP/9.9\r\nHost: x\r\n\r\n',
                     b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', b'GET /v1/ver\0sion HTTP/1.1\r\nHost: x\r\n\r\n', b'GET /v1/version HTTP/1.1\r\nHost: x\r\nX\0Y: z\r\n\r\n', b'\r\n' * 5000, b'GET /v1/version HTTP/1.1\r\n\r\n'):
            c = self.daemon.connect(3)
            try:
                c.sock.sendall(data)
                c.sock.shutdown(socket.SHUT_WR)
                c.answer()
            except (EOFError, OSError, ValueError, IndexError):
                pass
            c.close()

    def test_random_bytes(self):
        import random
        seed = random.Random(20260401)
        base = b'POST /v1/instances?start=true HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 46\r\n\r\n{"technology":"fake","image":"none","stdin":1}'
        for _ in range(400):
            data = bytearray(base)
            for _ in range(seed.randrange(1, 6)):
                data[seed.randrange(len(data))] = seed.randrange(256)
            c = self.daemon.connect(3)
            try:
                c.sock.sendall(bytes(data))
                c.sock.shutdown(socket.SHUT_WR)
                c.answer()
            except (EOFError, OSError, ValueError, IndexError):
                pass
            c.close()

    # ---- crowds

    def test_pipelining(self):
        c = self.daemon.connect()
        c.sock.sendall(b'GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n' * 200)
        for _ in range(200):
            self.assertEqual(c.answer().status, 200)
        c.close()

    def test_clients_that_leave(self):
        before = self.daemon.fds()
        for _ in range(30):
            for data in (b'GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n', b'GET /v1/host HTTP/1.1\r\nHost: x\r\n\r\n',
                         b'POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 35\r\n\r\n{"technology":"fake","image":"none"}', b'GET /v1/stats HTTP/1.1\r\nHost: x\r\n\r\n'):
                c = self.daemon.connect()
                c.sock.sendall(data)
                c.close()
        for _ in range(50):
            time.sleep(0.1)
            if self.daemon.fds() <= before + 2:
                break
        self.assertLessEqual(self.daemon.fds(), before + 2)


class SlowClients(bed.Case):
    def test_slow_headers_are_ended(self):
        """Slowloris: a byte a second renews no deadline."""
        c = self.daemon.connect(20)
        start = time.monotonic()
        line = b'GET /v1/version HTTP/1.1\r\nHost: x\r\nX-Slow: ' + b'a' * 100
        try:
            for i in range(len(line)):
                c.sock.sendall(line[i:i + 1])
                time.sleep(0.2)
        except OSError:
            pass
        took = time.monotonic() - start
        self.assertLess(took, 14)
        self.assertGreater(took, 8)
        self.expect(c.answer(), 408, 'BODY_TIMEOUT')
        c.close()
        self.expect(self.daemon.call('GET', '/v1/version'), 200)


class Flood(bed.Case):
    def test_ten_thousand_half_open_connections(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < FLOOD + 1000:
            self.skipTest(f'{hard} open files are not enough for {FLOOD} sockets')
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        held, delays, stop, failures = [], [], threading.Event(), []

        def healthy():
            while not stop.is_set():
                start = time.monotonic()
                try:
                    if self.daemon.call('GET', '/v1/version', timeout=10).status != 200:
                        raise AssertionError('no 200')
                    delays.append(time.monotonic() - start)
                except Exception as e:
                    failures.append(repr(e))
                time.sleep(0.02)

        worker = threading.Thread(target=healthy)
        worker.start()
        start = time.monotonic()
        for i in range(FLOOD):
            s = socket.socket(socket.AF_UNIX)
            s.connect(self.daemon.socket)
            s.settimeout(20)
            try:
                if i % 3 == 0:
                    s.send(b'GET /v1/instances HTTP/1.1\r\nHost: ')
                elif i % 3 == 1:
                    s.send(b'POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{')
            except OSError:
                pass
            held.append(s)
        took = time.monotonic() - start
        time.sleep(2)  # all of them are still held
        peak = self.daemon.memory()
        stop.set()
        worker.join()
        metrics = self.daemon.call('GET', '/v1/metrics').body.decode()
        for s in held:
            s.close()
        delays.sort()
        print(f'{FLOOD} half-open connections in {took:.1f} s; {len(delays)} healthy requests, median {delays[len(delays) // 2] * 1e3:.1f} ms, '
              f'worst {delays[-1] * 1e3:.0f} ms, failed {len(failures)}; daemon {peak[0] >> 10} KiB ({peak[1] >> 10} KiB private)', file=sys.stderr)
        self.assertEqual(failures, [])
        self.assertGreater(len(delays), 5)
        self.assertLess(delays[-1], 5)
        if not self.daemon.sanitized():
            self.assertLess(peak[1], 64 << 20)
        self.assertRegex(metrics, r'coracle_api_connections_evicted_total [1-9]')
        for _ in range(50):
            time.sleep(0.1)
            if self.daemon.fds() < 40:
                break
        self.assertLess(self.daemon.fds(), 40)
        time.sleep(1)
        self.expect_memory(8 << 20)

    def test_long_answers_are_bounded(self):
        """One client may hold half of all connections with streams, the rest is told so, and others are served."""
        held = []
        for _ in range(520):
            c = self.daemon.connect()
            c.send('GET', '/v1/events?follow=true')
            held.append(c)
        statuses = [c.head()[0] for c in held]
        self.assertEqual(statuses.count(200), 500)
        self.assertEqual(statuses.count(429), 20)
        self.expect(self.daemon.call('GET', '/v1/version'), 200)
        for c in held:
            c.close()


if __name__ == '__main__':
    bed.unittest.main(verbosity=2)
