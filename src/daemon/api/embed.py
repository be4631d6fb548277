# SPDX-License-Identifier: Apache-2.0
# Turns a text file into a C array, so that the daemon serves its own description without looking for a file.
# Called by meson: embed.py INPUT OUTPUT.
import sys

data = open(sys.argv[1], 'rb').read()
lines = [','.join(str(b if b < 128 else b - 256) for b in data[i:i + 32]) for i in range(0, len(data), 32)]
with open(sys.argv[2], 'w') as out:
    out.write('/* SPDX-License-Identifier: Apache-2.0 */\n/* Made by embed.py at build time. */\n')
    out.write('#include "daemon/api/openapi.h"\n\nconst char openapi_yaml[] = {\n' + ',\n'.join(lines) + '};\n')
    out.write('const size_t openapi_yaml_size = sizeof(openapi_yaml);\n')
