/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dropbear's options for a Tinyx guest (its localoptions.h): what a present-day ssh client speaks, and nothing that needs
 * a password, another program or an outdated algorithm. Keys of users: ed25519 and RSA (SHA-256).
 */
#define DROPBEAR_RSA                 1
#define DROPBEAR_RSA_SHA1            0
#define DROPBEAR_DSS                 0
#define DROPBEAR_ECDSA               0
#define DROPBEAR_ED25519             1
#define DROPBEAR_SK_KEYS             0
#define DROPBEAR_CURVE25519          1
#define DROPBEAR_ECDH                0
#define DROPBEAR_DH_GROUP14_SHA1     0
#define DROPBEAR_DH_GROUP14_SHA256   0
#define DROPBEAR_DH_GROUP16          0
#define DROPBEAR_3DES                0
#define DROPBEAR_ENABLE_CBC_MODE     0
#define DROPBEAR_SHA1_HMAC           0
#define DROPBEAR_SVR_PASSWORD_AUTH   0
#define DROPBEAR_SVR_AGENTFWD        0
#define DROPBEAR_SVR_LOCALTCPFWD     0
#define DROPBEAR_SVR_REMOTETCPFWD    0
#define DROPBEAR_X11FWD              0
#define DROPBEAR_SFTPSERVER          0
#define DROPBEAR_SMALL_CODE          1
#define DROPBEAR_USE_PASSWORD_ENV    0
#define DROPBEAR_REEXEC              0
#define DO_MOTD                      0
#define INETD_MODE                   0
