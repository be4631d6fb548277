#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The command line over TLS on loopback: authority, token, client certificate; exec's stream as well.
source "${0%/*}/../lib.sh"
command -v openssl >/dev/null || skip "openssl is not installed"

case_is "an authority, a server's and a client's certificate"
certificate()
{
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$WORK/$1.key" -out "$WORK/$1.csr" \
        -subj "/CN=$1" -addext "subjectAltName=IP:127.0.0.1" >/dev/null 2>&1
    openssl x509 -req -in "$WORK/$1.csr" -CA "$WORK/ca.pem" -CAkey "$WORK/ca.key" -CAcreateserial -days 2 \
        -copy_extensions copy -out "$WORK/$1.pem" >/dev/null 2>&1
}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$WORK/ca.key" -out "$WORK/ca.pem" \
    -subj /CN=test-authority -days 2 >/dev/null 2>&1
certificate server
certificate client
PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
printf 'someone:%s\n' "$(printf secret | sha256sum | cut -d' ' -f1)" >"$WORK/tokens"
cat >"$WORK/coracled.conf" <<END
listen = 127.0.0.1:$PORT
tls_cert = $WORK/server.pem
tls_key = $WORK/server.key
tls_client_ca = $WORK/ca.pem
token_file = $WORK/tokens
END
chmod 600 "$WORK"/*.key "$WORK/tokens"
platform_up --daemon-config "$WORK/coracled.conf"
TLS="https://127.0.0.1:$PORT"

case_is "a token lets in, by option and by environment"
run coracle -H "$TLS" --cacert "$WORK/ca.pem" --token secret run --on fake --name a
expect_status 0
expect_out_is "a"
CORACLE_TOKEN=secret CORACLE_HOST=$TLS CORACLE_CACERT=$WORK/ca.pem run coracle ps
expect_status 0
expect_out "STARTED"

case_is "a client certificate lets in"
run coracle -H "$TLS" --cacert "$WORK/ca.pem" --cert "$WORK/client.pem" --key "$WORK/client.key" inspect --field name a
expect_status 0
expect_out_is "a"

case_is "exec's stream over TLS"
run sh -c "coracle -H $TLS --cacert $WORK/ca.pem --token secret exec a exit 23"
expect_status 23
run coracle -H "$TLS" --cacert "$WORK/ca.pem" --token secret exec a echo over tls
expect_out_is "over tls"

case_is "nobody else"
run coracle -H "$TLS" --cacert "$WORK/ca.pem" ps
expect_status 5
expect_err "UNAUTHORIZED"
run coracle -H "$TLS" --cacert "$WORK/ca.pem" --token wrong ps
expect_status 5
run coracle -H "$TLS" --cacert "$WORK/ca.pem" exec a echo x
expect_status 5
expect_out_is ""

case_is "an unknown authority is refused by the client, before the token is sent"
run coracle -H "$TLS" --token secret ps
expect_status 1
expect_err "DAEMON_UNAVAILABLE"
expect_err "--cacert"

case_is "the token is not shown"
run coracle --explain -H "$TLS" --token secret ps
expect_no_out "secret"

finish
