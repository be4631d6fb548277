/* SPDX-License-Identifier: Apache-2.0 */
/* What lwIP asks of a compiler and a C library, for a freestanding x86-64 guest. */
#ifndef UNIKERNEL_ARCH_CC_H
#define UNIKERNEL_ARCH_CC_H

#include <stddef.h>
#include <stdint.h>

#define LWIP_NO_INTTYPES_H 1
#define LWIP_NO_LIMITS_H   1
#define LWIP_NO_CTYPE_H    1
#define LWIP_NO_UNISTD_H   1
#define X8_F               "x"
#define U16_F              "u"
#define S16_F              "d"
#define X16_F              "x"
#define U32_F              "u"
#define S32_F              "d"
#define X32_F              "x"
#define SZT_F              "zu"
#define INT_MAX            0x7fffffff
#define SSIZE_MAX          INT_MAX
typedef long ssize_t;

#define LWIP_PLATFORM_DIAG(x)                                                                                          \
    do {                                                                                                               \
    } while (0)
void unikernel_panic(const char *message) __attribute__((noreturn));
#define LWIP_PLATFORM_ASSERT(x) unikernel_panic(x)

uint32_t unikernel_random(void);
#define LWIP_RAND() unikernel_random()

#define PACK_STRUCT_STRUCT __attribute__((packed))
#define SYS_ARCH_DECL_PROTECT(x)
#define SYS_ARCH_PROTECT(x)
#define SYS_ARCH_UNPROTECT(x)

#endif
