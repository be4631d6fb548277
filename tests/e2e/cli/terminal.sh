#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the command line does on a terminal: colours, progress, raw mode and its end, top. The terminal is terminal.py's.
source "${0%/*}/../lib.sh"
platform_up
coracle -q run --on fake --name a >/dev/null
coracle -q run --no-wait -f - >/dev/null <<<'{technology: fake, name: with-tty, tty: true, stdin: true}'
coracle -q wait with-tty --for=started --timeout 5s >/dev/null

case_is "on a terminal"
WORK=$WORK run python3 "${0%/*}/terminal_fake.py"
echo "$OUT"
expect_status 0
expect_err_is ""

finish
