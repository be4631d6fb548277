/* SPDX-License-Identifier: Apache-2.0 */
/* The commands' table rows, each defined in the file of its group. Included by commands.c alone. */
#ifndef CORACLE_CLI_COMMANDS_H
#define CORACLE_CLI_COMMANDS_H

#include "cli/cli.h"

/* run.c */
extern const struct command command_run_, command_create;
/* verbs.c */
extern const struct command command_start, command_stop, command_restart, command_pause, command_resume, command_rm;
/* change.c */
extern const struct command command_update, command_kill, command_wait;
/* ps.c, inspect.c, logs.c, events.c */
extern const struct command command_ps, command_inspect, command_logs, command_events;
/* exec.c */
extern const struct command command_exec, command_attach;
/* top.c */
extern const struct command command_top, command_stats;
/* operation.c */
extern const struct command command_operation_ls, command_operation_inspect, command_operation_cancel;
/* image.c */
extern const struct command command_image_ls, command_image_import, command_image_pull, command_image_inspect,
    command_image_rm;
/* snapshot.c */
extern const struct command command_snapshot_ls, command_snapshot_create, command_snapshot_restore, command_snapshot_rm;

/* network.c */
extern const struct command command_network_ls, command_network_create, command_network_inspect, command_network_rm;
/* apply.c */
extern const struct command command_plan, command_apply;
/* doctor.c, up.c */
extern const struct command command_doctor, command_up, command_down;
/* programs.c: other programs behind this one's name */
extern const struct command command_bench, command_pack;
/* build.c */
extern const struct command command_build;
/* about.c, help.c */
extern const struct command command_version, command_completion, command_help;

#endif
