/* SPDX-License-Identifier: Apache-2.0 */
/* Frames for test_guard.c, sent from inside an instance. */
#ifndef CORACLE_TESTS_LAUNCHER_FORGE_H
#define CORACLE_TESTS_LAUNCHER_FORGE_H

enum { FORGE_HONEST = 12, FORGE_FORGED = 24 };

/* Sends them all; the victim's addresses as text. 0, or an exit status. */
int forge(const char *victim4, const char *victim6);

#endif
