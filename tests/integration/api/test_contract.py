#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Holds the running daemon to docs/api/openapi.yaml: every route is described and every description is a route; every
# answer has a described status and media type and a body that fits its schema; every described failure exists.
import io, json, os, re, subprocess, sys, tarfile
import bed
bed.take_daemon_argument()
try:
    import jsonschema, yaml
except ImportError as e:
    print(f'skipped: {e}; apt install python3-yaml python3-jsonschema')
    sys.exit(77)

HERE = os.path.dirname(os.path.abspath(__file__))
ROUTES = os.path.join(HERE, '../../../src/daemon/api/routes.c')
ABSENT = '00000000-0000-4000-8000-000000000000'


def read(path):
    with open(path) as f:
        return f.read()


def strict(schema):
    """OpenAPI 3.0's nullable in JSON Schema's words."""
    if isinstance(schema, list):
        return [strict(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out = {k: strict(v) for k, v in schema.items() if k != 'nullable'}
    return {'anyOf': [{'type': 'null'}, out]} if schema.get('nullable') is True else out


class Contract(bed.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.text = cls.daemon.call('GET', '/v1/openapi.yaml').body
        cls.api = yaml.safe_load(cls.text)
        cls.schemas = strict(cls.api['components']['schemas'])
        cls.seen = set()
        cls.daemon.create('keeper', labels={'a': 'b'})
        cls.daemon.create('ended', fault={'step': 'run', 'after_ms': 1, 'exit_status': 3})
        cls.daemon.create('broken', fault={'step': 'start'})

    def resolve(self, node):
        while isinstance(node, dict) and '$ref' in node:
            found = self.api
            for key in node['$ref'][2:].split('/'):
                found = found[key]
            node = found
        return node

    def check(self, path, method, answer):
        """The answer is one that the description allows for this call."""
        call = self.api['paths'][path][method.lower()]
        status = str(answer.status)
        self.assertTrue(status in call['responses'] or answer.status >= 400, f'{method} {path}: {answer}')
        described = self.resolve(call['responses'].get(status) or call['responses']['default'])
        self.seen.add((method.upper(), path, status if status in call['responses'] else 'default'))
        if 'content' not in described:
            self.assertEqual(answer.body, b'', f'{method} {path}')
            return answer
        kind = answer.headers['content-type'].split(';')[0]
        self.assertIn(kind, described['content'], f'{method} {path}: {answer}')
        if kind.endswith('json'):
            schema = {'components': {'schemas': self.schemas}, **strict(described['content'][kind]['schema'])}
            try:
                jsonschema.validate(answer.json, schema)
            except jsonschema.ValidationError as e:
                self.fail(f'{method} {path}: {e.message} at {list(e.absolute_path)} in {answer.body[:2000]}')
        for name in described.get('headers', {}):
            self.assertIn(name.lower(), answer.headers, f'{method} {path}')
        return answer

    def do(self, method, path, target=None, body=None, kind='application/json', headers=(), status=None):
        answer = self.check(path, method, self.daemon.call(method, target or path, body, kind, headers))
        if status:
            self.assertEqual(answer.status, status, f'{method} {target or path}: {answer}')
        return answer

    def test_every_route_is_described(self):
        source = read(ROUTES)
        routes = {(m, p) for m, p in re.findall(r'\{"([A-Z]+)", "([^"]+)"', source)}
        described = {(m.upper(), p) for p, calls in self.api['paths'].items() for m in calls if m != 'parameters'}
        self.assertEqual(routes, described)
        self.assertGreater(len(routes), 30)

    def test_every_parameter_is_described(self):
        for m, p, names in re.findall(r'\{"([A-Z]+)", "([^"]+)", \{([^}]*)\}', read(ROUTES)):
            wanted = set(re.findall(r'"(\w+)"', names))
            call = self.api['paths'][p]
            given = [self.resolve(x) for x in call.get('parameters', []) + call[m.lower()].get('parameters', [])]
            self.assertEqual(wanted, {x['name'] for x in given if x['in'] == 'query'}, f'{m} {p}')
            self.assertEqual(set(re.findall(r'\{(\w+)\}', p)), {x['name'] for x in given if x['in'] == 'path'})

    def test_every_code_has_its_status(self):
        codes = read(os.path.join(HERE, '../../../src/model/codes.h'))
        self.codes = {c: int(s) for c, s in re.findall(r'X\((\w+), (\d+), \d+\)', codes)}
        a = self.do('GET', '/v1/instances/{id}', '/v1/instances/nobody', status=404)
        self.assertEqual(self.codes[a.json['code']], 404)

    def test_platform(self):
        for path in ('/v1/version', '/v1/host', '/v1/metrics', '/v1/health', '/v1/stats', '/v1/openapi.yaml'):
            self.do('GET', path, status=200)
            self.do('GET', path, path + '?x=1', status=400)
        with open(os.path.join(HERE, '../../../docs/api/openapi.yaml'), 'rb') as f:
            self.assertEqual(f.read(), self.text)

    def test_metrics_are_prometheus_text(self):
        line = re.compile(r'(# (HELP|TYPE) [a-z_:][a-z0-9_:]* .+|[a-z_:][a-z0-9_:]*(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [0-9.e+-]+)$')
        text = self.do('GET', '/v1/metrics').body.decode()
        self.assertTrue(text.endswith('\n'))
        for l in text.splitlines():
            self.assertTrue(line.match(l), l)
        names = re.findall(r'^# TYPE (\S+)', text, re.M)
        self.assertEqual(len(names), len(set(names)))
        self.assertIn('coracle_api_connections', names)

    def test_instances(self):
        d = self.daemon
        a = self.do('POST', '/v1/instances', '/v1/instances?start=false', {'name': 'c-one', 'technology': 'fake', 'image': 'none'}, status=201)
        self.assertIsNone(a.json['operation'])
        self.assertEqual(self.do('GET', '/v1/instances/{id}', a.headers['location'], status=200).json['name'], 'c-one')
        a = self.do('POST', '/v1/instances', body='name: c-two\ntechnology: fake\nimage: none\nlabels: {v: "1.10"}\nrestart: no\n', kind='application/yaml', status=202)
        operation = a.json['operation']['id']
        self.do('GET', '/v1/operations/{id}', f'/v1/operations/{operation}?wait_ms=5000', status=200)
        self.do('GET', '/v1/operations/{id}', f'/v1/operations/{operation}', status=200)
        for query in ('', '?name=c-one', '?technology=fake&technology=-container', '?state=-STARTED', '?label=v%3D1.10', '?image=none'):
            self.do('GET', '/v1/instances', '/v1/instances' + query, status=200)
        self.assertEqual(len(self.do('GET', '/v1/instances', '/v1/instances?label=v%3D1.10').json['items']), 1)
        self.do('PATCH', '/v1/instances/{id}', '/v1/instances/c-two', {'labels': {'x': 'y'}}, status=202)
        d.wait(d.call('GET', '/v1/operations?instance=c-two').json['items'][0]['id'])
        for verb, after in (('pause', 'PAUSED'), ('resume', 'STARTED'), ('restart', 'STARTED'), ('stop', 'STOPPED'), ('start', 'STARTED')):
            body = {'grace_ms': 100} if verb in ('stop', 'restart') else None
            a = self.do('POST', f'/v1/instances/{{id}}/{verb}', f'/v1/instances/c-two/{verb}', body, status=202)
            self.assertEqual(d.wait(a.json['id'])['operationState'], 'COMPLETED')
            self.assertEqual(self.do('GET', '/v1/instances/{id}', '/v1/instances/c-two').json['state'], after)
            self.do('POST', f'/v1/instances/{{id}}/{verb}', '/v1/instances/nobody/' + verb, status=404)
        self.do('POST', '/v1/instances/{id}/signal', '/v1/instances/c-two/signal', {'signal': 'SIGHUP'}, status=204)
        self.do('POST', '/v1/instances/{id}/signal', '/v1/instances/c-two/signal', {'signal': 'SIGNOT'}, status=400)
        self.do('GET', '/v1/instances/{id}/stats', '/v1/instances/c-two/stats', status=200)
        self.do('GET', '/v1/stats', status=200)
        self.do('GET', '/v1/instances/{id}/logs', '/v1/instances/c-two/logs?tail=5', status=200)
        self.do('GET', '/v1/instances/{id}/logs', '/v1/instances/c-two/logs?stream=x', status=400)
        self.do('DELETE', '/v1/instances/{id}', '/v1/instances/c-two', status=409)
        a = self.do('DELETE', '/v1/instances/{id}', '/v1/instances/c-two?force=true', status=202)
        self.assertEqual(d.wait(a.json['id'])['operationState'], 'COMPLETED')
        self.do('GET', '/v1/instances/{id}', '/v1/instances/c-two', status=404)
        self.do('GET', '/v1/operations', '/v1/operations?operation=TERMINATE', status=200)
        self.do('DELETE', '/v1/instances/{id}', '/v1/instances/c-one', status=202)

    def test_failures(self):
        for body, code in (({'image': 'x', 'nonsense': 1}, 'UNKNOWN_FIELD'), ({'technology': 'fake', 'image': 'none', 'name': 'keeper'}, 'NAME_TAKEN'),
                           ({'technology': 'nix', 'image': 'x'}, 'UNKNOWN_TECHNOLOGY'), ({'technology': 'container', 'image': 'absent'}, None),
                           ({'technology': 'fake', 'image': 'none', 'resources': {'memory': '64Mib'}}, 'INVALID_UNIT'),
                           ({'technology': 'fake', 'image': 'none', 'resources': {'pids': -1}}, 'INVALID_VALUE')):
            a = self.do('POST', '/v1/instances', body=body)
            self.assertGreaterEqual(a.status, 400)
            if code:
                self.assertEqual(a.json['code'], code, a)
        self.do('PATCH', '/v1/instances/{id}', '/v1/instances/keeper', {'image': 'other'}, status=400)
        self.do('POST', '/v1/instances/{id}/resume', '/v1/instances/keeper/resume', status=409)
        self.do('GET', '/v1/instances/{id}', '/v1/instances/broken', status=200)
        self.do('GET', '/v1/instances/{id}', '/v1/instances/ended', status=200)
        self.do('GET', '/v1/operations/{id}', '/v1/operations/' + ABSENT, status=404)
        self.do('POST', '/v1/operations/{id}/cancel', f'/v1/operations/{ABSENT}/cancel', status=404)
        self.do('POST', '/v1/instances/{id}/exec', '/v1/instances/keeper/exec', {'command': ['echo']}, status=400)
        self.do('POST', '/v1/instances/{id}/attach', '/v1/instances/keeper/attach', status=400)

    def test_cancel(self):
        a = self.do('POST', '/v1/instances', body={'name': 'slow', 'technology': 'fake', 'image': 'none', 'fault': {'step': 'hang-start'}}, status=202)
        operation = a.json['operation']['id']
        self.do('POST', '/v1/operations/{id}/cancel', f'/v1/operations/{operation}/cancel', status=202)
        self.assertIn(self.daemon.wait(operation)['operationState'], ('FAILED', 'ROLLED_BACK'))
        self.do('POST', '/v1/operations/{id}/cancel', f'/v1/operations/{operation}/cancel', status=409)

    def test_entity_tags(self):
        a = self.do('GET', '/v1/instances/{id}', '/v1/instances/keeper', status=200)
        tag = a.headers['etag']
        self.do('GET', '/v1/instances/{id}', '/v1/instances/keeper', headers=['If-None-Match: ' + tag], status=304)
        b = self.do('PATCH', '/v1/instances/{id}', '/v1/instances/keeper', {'labels': {'n': 'x'}}, headers=['If-Match: "0000"'], status=412)
        self.assertEqual(b.json['code'], 'PRECONDITION_FAILED')
        b = self.do('PATCH', '/v1/instances/{id}', '/v1/instances/keeper', {'labels': {'n': 'x'}}, headers=['If-Match: ' + tag], status=202)
        self.daemon.wait(b.json['id'])
        self.do('PATCH', '/v1/instances/{id}', '/v1/instances/keeper', {'labels': {'n': 'y'}}, headers=['If-Match: ' + tag], status=412)
        self.assertNotEqual(self.do('GET', '/v1/instances/{id}', '/v1/instances/keeper').headers['etag'], tag)

    def test_events(self):
        self.do('GET', '/v1/events', status=200)
        items = self.do('GET', '/v1/events', '/v1/events?instance=keeper').json['items']
        self.assertGreater(len(items), 1)
        self.assertEqual({i['instance_name'] for i in items}, {'keeper'})
        last = items[-1]['seq']
        self.assertEqual([i for i in self.do('GET', '/v1/events', f'/v1/events?instance=keeper&since={last}').json['items'] if i['seq'] <= last], [])
        self.do('GET', '/v1/events', '/v1/events?since=x', status=400)

    def test_images(self):
        self.do('GET', '/v1/images', status=200)
        self.do('GET', '/v1/images/{ref}', '/v1/images/not%2Fthere', status=404)
        self.do('DELETE', '/v1/images/{ref}', '/v1/images/not%2Fthere', status=404)
        self.do('POST', '/v1/images/pull', body={'reference': 'bad reference'})
        self.do('POST', '/v1/images', '/v1/images?name=x', b'no archive', 'text/plain', status=415)
        self.do('POST', '/v1/images', '/v1/images?name=x', b'no archive', 'application/x-tar')

    def test_networks(self):
        self.do('GET', '/v1/networks', status=200)
        a = self.do('POST', '/v1/networks', body={'name': 'blue'})
        if a.status == 201:
            self.do('GET', '/v1/networks/{name}', '/v1/networks/blue', status=200)
            self.do('POST', '/v1/networks', body={'name': 'blue'}, status=409)
            self.do('DELETE', '/v1/networks/{name}', '/v1/networks/blue', status=204)
        self.do('GET', '/v1/networks/{name}', '/v1/networks/blue', status=404)
        self.do('DELETE', '/v1/networks/{name}', '/v1/networks/blue', status=404)

    def test_methods(self):
        for path, calls in self.api['paths'].items():
            target = re.sub(r'\{\w+\}', 'keeper', path)
            have = {m.upper() for m in calls if m != 'parameters'}
            for method in {'GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE'} - have:
                a = self.daemon.call(method, target)
                if path == '/v1/images/pull' and method in ('GET', 'DELETE'):
                    continue  # there "pull" is a reference
                self.expect(a, 405, 'METHOD_NOT_ALLOWED')
                self.assertEqual(set(a.headers['allow'].split(', ')) & have, have)

    def test_yes_head(self):
        c = self.daemon.connect()
        a = c.call('HEAD', '/v1/version')
        self.assertEqual((a.status, a.body), (200, b''))
        self.assertGreater(int(a.headers['content-length']), 0)
        self.assertEqual(c.call('GET', '/v1/version').status, 200)
        c.close()


if __name__ == '__main__':
    bed.unittest.main(verbosity=2)
