# SPDX-License-Identifier: Apache-2.0
# The client side of coracle-stream, for the tests of exec and attach.
import json, struct


def frame(stream, data):
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    return struct.pack('>BBHI', stream, 0, 0, len(data)) + data


class Stream:
    def __init__(self, daemon, target, body, timeout=10):
        self.c = daemon.connect(timeout)
        self.c.send('POST', target, body, headers=['Connection: Upgrade', 'Upgrade: coracle-stream'])
        self.status, self.headers = self.c.head()

    def problem(self):
        return json.loads(self.c.exactly(int(self.headers['content-length'])))

    def read(self):
        stream, zero, zero2, n = struct.unpack('>BBHI', self.c.exactly(8))
        assert zero == zero2 == 0
        return stream, self.c.exactly(n)

    def until_end(self):
        """Bytes by stream, and the last control frame; the connection must end behind it."""
        out = {1: bytearray(), 2: bytearray()}
        while True:
            stream, data = self.read()
            if stream == 3:
                assert not self.c.rest and not self.c.fill(), 'something after the last frame'
                return bytes(out[1]), bytes(out[2]), json.loads(data)
            out[stream] += data

    def send(self, *frames):
        try:
            self.c.sock.sendall(b''.join(frames))
        except BrokenPipeError:
            pass  # it has ended already; what it said can still be read

    def close(self):
        self.c.close()
