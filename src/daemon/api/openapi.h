/* SPDX-License-Identifier: Apache-2.0 */
/* docs/api/openapi.yaml as it was when the daemon was built: made by embed.py, served by platform.c. */
#ifndef CORACLE_DAEMON_API_OPENAPI_H
#define CORACLE_DAEMON_API_OPENAPI_H

#include <stddef.h>

extern const char openapi_yaml[];
extern const size_t openapi_yaml_size;

#endif
