#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# The long answers: events (SSE), logs that are followed, exec and attach over coracle-stream, waiting for operations.
import json, os, sys, time
import bed
from test_streams_client import Stream, frame
bed.take_daemon_argument()


class Exec(bed.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.daemon.create('shell')

    def run_in(self, body, *frames):
        s = Stream(self.daemon, '/v1/instances/shell/exec', body)
        self.assertEqual(s.status, 101, s.headers)
        self.assertEqual(s.headers['upgrade'], 'coracle-stream')
        s.send(*frames)
        result = s.until_end()
        s.close()
        return result

    def test_output_and_status(self):
        self.assertEqual(self.run_in({'command': ['/bin/echo', 'hello', 'world']}), (b'hello world\n', b'', {'exit': {'status': 0}}))
        self.assertEqual(self.run_in({'command': ['false']})[2], {'exit': {'status': 1}})
        self.assertEqual(self.run_in({'command': ['exit', '42']})[2], {'exit': {'status': 42}})

    def test_terminal(self):
        out, _, end = self.run_in({'command': ['echo', 'on a terminal'], 'tty': True}, frame(3, {'resize': [120, 40]}))
        self.assertEqual((out, end), (b'on a terminal\n', {'exit': {'status': 0}}))

    def test_input_and_signals_are_taken(self):
        out, _, end = self.run_in({'command': ['sleep', '300'], 'stdin': True}, frame(0, b'x' * 1000), frame(3, {'signal': 'SIGUSR1'}), frame(0, b''))
        self.assertEqual(end, {'exit': {'status': 0}})

    def test_input_sent_with_the_request(self):
        """What follows the request in the same packet belongs to the stream."""
        c = self.daemon.connect()
        body = json.dumps({'command': ['sleep', '100'], 'stdin': True}).encode()
        c.sock.sendall(b'POST /v1/instances/shell/exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: coracle-stream\r\nContent-Type: application/json\r\n'
                       b'Content-Length: %d\r\n\r\n' % len(body) + body + frame(0, b'early') + frame(0, b''))
        self.assertEqual(c.head()[0], 101)
        self.assertEqual(c.exactly(8)[0], 3)
        c.close()

    def test_protocol_errors(self):
        for bad, code in ((frame(1, b'x'), 'PROTOCOL_ERROR'), (b'\0\1\0\0\0\0\0\0', 'PROTOCOL_ERROR'), (b'\0\0\0\0\xff\xff\xff\xff', 'PROTOCOL_ERROR'),
                          (frame(3, b'nonsense'), 'PROTOCOL_ERROR'), (frame(3, {'signal': 'SIGNOT'}), 'INVALID_VALUE'), (frame(3, {'resize': [0, 0]}), 'INVALID_VALUE')):
            end = self.run_in({'command': ['sleep', '2000'], 'stdin': True}, bad)[2]
            self.assertEqual(end['error']['code'], code)

    def test_refusals_come_as_problems(self):
        for body, code in (({'command': []}, None), ({'command': ['x'], 'nonsense': 1}, 'UNKNOWN_FIELD'), ({}, None), ({'command': 'x'}, None)):
            s = Stream(self.daemon, '/v1/instances/shell/exec', body)
            self.assertEqual(s.status // 100, 4)
            problem = s.problem()
            if code:
                self.assertEqual(problem['code'], code)
            s.close()
        s = Stream(self.daemon, '/v1/instances/nobody/exec', {'command': ['x']})
        self.assertEqual(s.status, 404)
        s.close()
        self.expect(self.daemon.call('POST', '/v1/instances/shell/exec', {'command': ['x']}), 400, 'INVALID_VALUE')

    def test_clients_that_leave(self):
        before = self.daemon.fds()
        for i in range(60):
            s = Stream(self.daemon, '/v1/instances/shell/exec', {'command': ['sleep', '100'], 'stdin': True, 'tty': i % 2 == 0})
            if i % 3:
                s.send(frame(0, b'x' * i)[:5 + i])
            s.close()
        for _ in range(60):
            time.sleep(0.1)
            if self.daemon.fds() <= before:
                break
        self.assertLessEqual(self.daemon.fds(), before)

    def test_many_at_once(self):
        streams = [Stream(self.daemon, '/v1/instances/shell/exec', {'command': ['echo', str(i)]}) for i in range(100)]
        for i, s in enumerate(streams):
            self.assertEqual(s.until_end(), (b'%d\n' % i, b'', {'exit': {'status': 0}}))
            s.close()


class Attach(bed.Case):
    def test_terminal_echoes_through_the_log(self):
        self.daemon.create('console', tty=True, stdin=True)
        s = Stream(self.daemon, '/v1/instances/console/attach', None)
        self.assertEqual(s.status, 101)
        s.send(frame(0, b'typed\n'), frame(3, {'resize': [80, 24]}))
        self.assertEqual(s.read(), (1, b'typed\n'))
        a = self.daemon.call('POST', '/v1/instances/console/stop', {'grace_ms': 1000})
        out, err, end = s.until_end()
        self.assertIn('exit', end)
        self.daemon.wait(a.json['id'])
        s.close()

    def test_output_only_without_console(self):
        self.daemon.create('quiet')
        s = Stream(self.daemon, '/v1/instances/quiet/attach', None)
        self.assertEqual(s.status, 101)
        s.send(frame(0, b'nobody reads this'), frame(3, {'signal': 'SIGHUP'}))
        self.assertEqual(s.read(), (2, b'signal 1\n'))
        self.daemon.call('DELETE', '/v1/instances/quiet?force=true')
        end = s.until_end()[2]
        self.assertTrue('exit' in end or end['error']['code'] == 'INSTANCE_NOT_FOUND', end)
        s.close()

    def test_not_running(self):
        self.daemon.call('POST', '/v1/instances?start=false', {'name': 'idle', 'technology': 'fake', 'image': 'none'})
        s = Stream(self.daemon, '/v1/instances/idle/attach', None)
        self.assertEqual((s.status, s.problem()['code']), (409, 'CONFLICTING_STATE'))
        s.close()


class Logs(bed.Case):
    def test_follow_until_the_end(self):
        self.daemon.create('talker')
        c = self.daemon.connect()
        c.send('GET', '/v1/instances/talker/logs?follow=true')
        status, headers = c.head()
        self.assertEqual((status, headers['content-type']), (200, 'text/plain'))
        chunks = c.chunks()
        self.assertIn(b' stdout F fake instance started\n', next(chunks))
        start = time.monotonic()
        self.daemon.call('POST', '/v1/instances/talker/signal', {'signal': 'SIGHUP'})
        self.assertIn(b' stderr F signal 1\n', next(chunks))
        self.assertLess(time.monotonic() - start, 1)
        self.daemon.call('POST', '/v1/instances/talker/stop')
        self.assertIn(b'signal 15', b''.join(chunks))
        c.close()
        lines = self.daemon.call('GET', '/v1/instances/talker/logs').body.splitlines()
        self.assertEqual([l.split(b' ', 3)[3] for l in lines], [b'fake instance started', b'signal 1', b'signal 15'])
        for query, words in (('tail=1', [b'signal 15']), ('stream=stdout', [b'fake instance started']), ('stream=stderr&tail=1', [b'signal 15']),
                             ('tail=0', []), ('since=2100-01-01T00:00:00Z', []), ('since=0', [b'fake instance started', b'signal 1', b'signal 15'])):
            got = self.daemon.call('GET', '/v1/instances/talker/logs?' + query).body.splitlines()
            self.assertEqual([l.split(b' ', 3)[3] for l in got], words, query)

    def test_follower_that_leaves(self):
        self.daemon.create('left')
        before = self.daemon.fds()
        for _ in range(20):
            c = self.daemon.connect()
            c.send('GET', '/v1/instances/left/logs?follow=true')
            c.head()
            c.close()
        for _ in range(30):
            time.sleep(0.1)
            if self.daemon.fds() <= before:
                break
        self.assertLessEqual(self.daemon.fds(), before)


class Events(bed.Case):
    def follow(self, query='', headers=()):
        c = self.daemon.connect()
        c.send('GET', '/v1/events?follow=true' + query, headers=headers)
        status, got = c.head()
        self.assertEqual((status, got['content-type']), (200, 'text/event-stream'))
        return c, self.parse(c)

    def parse(self, c):
        text = ''
        for chunk in c.chunks():
            text += chunk.decode()
            while '\n\n' in text:
                block, text = text.split('\n\n', 1)
                fields = dict(l.split(': ', 1) for l in block.splitlines() if not l.startswith(':'))
                if 'data' in fields:
                    yield int(fields['id']), fields['event'], json.loads(fields['data'])

    def test_stream_and_resume(self):
        c, events = self.follow()
        self.daemon.create('seen')
        got = []
        while not got or got[-1][1] != 'operation.ended':
            got.append(next(events))
        c.close()
        self.assertEqual([t for _, t, _ in got].count('instance.created'), 1)
        self.assertEqual([s for s, _, _ in got], sorted(s for s, _, _ in got))
        for seq, kind, data in got:
            self.assertEqual((data['seq'], data['type'], data['instance_name']), (seq, kind, 'seen'))
        # Everything again from the first on, by header and by query.
        for query, headers in (('', [f'Last-Event-ID: {got[0][0]}']), (f'&since={got[0][0]}', []), ('&since=0', [f'Last-Event-ID: {got[0][0]}'])):
            c, events = self.follow(query, headers)
            self.assertEqual([next(events) for _ in got[1:]], got[1:])
            c.close()
        c, events = self.follow('&since=0&instance=seen')
        self.assertEqual(next(events)[2]['instance_name'], 'seen')
        c.close()
        self.expect(self.daemon.call('GET', '/v1/events?follow=true', headers=['Last-Event-ID: x']), 400, 'INVALID_VALUE')

    def test_many_followers_see_the_same(self):
        followers = [self.follow() for _ in range(50)]
        self.daemon.create('crowd')
        firsts = {json.dumps(next(events)) for _, events in followers}
        self.assertEqual(len(firsts), 1)
        for c, _ in followers:
            c.close()

    def test_slow_follower_costs_little(self):
        c = self.daemon.connect()
        c.send('GET', '/v1/events?follow=true')
        for i in range(300):
            self.daemon.call('POST', '/v1/instances?start=false', {'name': f'n{i}', 'technology': 'fake', 'image': 'none'})
        self.expect_memory(12 << 20)
        c.head()
        seen = 0
        for _, kind, _ in self.parse(c):
            seen += kind == 'instance.created'
            if seen == 300:
                break
        c.close()


class Waiting(bed.Case):
    def test_wait_answers_at_the_end(self):
        a = self.daemon.call('POST', '/v1/instances', {'name': 'w', 'technology': 'fake', 'image': 'none', 'fault': {'step': 'run', 'start_ms': 300, 'after_ms': 60000}})
        operation = a.json['operation']['id']
        start = time.monotonic()
        b = self.daemon.call('GET', f'/v1/operations/{operation}?wait_ms=50')
        self.assertNotEqual(b.json['operationState'], 'COMPLETED')
        self.assertLess(time.monotonic() - start, 0.25)
        b = self.daemon.call('GET', f'/v1/operations/{operation}?wait_ms=5000')
        self.assertEqual(b.json['operationState'], 'COMPLETED')
        self.assertTrue(0.2 < time.monotonic() - start < 2)
        start = time.monotonic()
        self.daemon.call('GET', f'/v1/operations/{operation}?wait_ms=5000')
        self.assertLess(time.monotonic() - start, 0.5)
        self.expect(self.daemon.call('GET', '/v1/operations/nothing?wait_ms=100'), 404, 'OPERATION_NOT_FOUND')

    def test_waiter_that_leaves(self):
        a = self.daemon.call('POST', '/v1/instances', {'name': 'never', 'technology': 'fake', 'image': 'none', 'fault': {'step': 'hang-start'}})
        before = self.daemon.fds()
        for _ in range(50):
            c = self.daemon.connect()
            c.send('GET', f'/v1/operations/{a.json["operation"]["id"]}?wait_ms=60000')
            c.close()
        for _ in range(30):
            time.sleep(0.1)
            if self.daemon.fds() <= before:
                break
        self.assertLessEqual(self.daemon.fds(), before)


class Ending(bed.unittest.TestCase):
    def test_daemon_ends_with_streams_open(self):
        d = bed.Daemon()
        d.create('one', tty=True)
        held = []
        for target in ('/v1/events?follow=true', '/v1/instances/one/logs?follow=true'):
            c = d.connect()
            c.send('GET', target)
            c.head()
            held.append(c)
        held.append(Stream(d, '/v1/instances/one/exec', {'command': ['sleep', '60000']}))
        held.append(Stream(d, '/v1/instances/one/attach', None))
        self.assertEqual(d.stop(), 0, d.words())
        self.assertFalse(os.path.exists(d.socket))
        for c in held:
            c.close()
        d.remove()


if __name__ == '__main__':
    bed.unittest.main(verbosity=2)
