/* SPDX-License-Identifier: Apache-2.0 */
/* version and completion: about the program itself. */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/complete.h"

static int run_version(struct cli *cli, const struct args *args, struct error **err)
{
    json_t *server = NULL;
    struct error *why = NULL;
    int r = api_get(cli, "/v1/version", &server, &why);

    if (cli->explain)
        return r;
    if (cli->json) {
        json_t *all = json_pack("{s:s, s:s, s:O?}", "client", CORACLE_VERSION, "api", "v1", "server", server);

        print_json(all);
        json_decref(all);
    } else if (r == 0) {
        printf("coracle %s\ndaemon  %s (interface %s)\n", CORACLE_VERSION, text_member(server, "version"),
               text_member(server, "api"));
    } else {
        char text[512];

        printf("coracle %s\ndaemon  not reached: %s\n", CORACLE_VERSION, error_text(why, text, sizeof(text)));
    }
    error_free(why);
    json_decref(server);
    return 0;
}

const struct command command_version = {
    .name = "version",
    .section = "This program",
    .synopsis = "",
    .summary = "Print the versions of this program and of the daemon",
    .text = "Works without a daemon, and then says why it was not reached.",
    .run = run_version,
};

/* Each script only calls the program back: what can be completed is decided in one place (complete.c). */
static const char bash_script[] =
    "# bash completion of coracle; made by: coracle completion bash\n"
    "_coracle()\n"
    "{\n"
    "    local line words=(\"${COMP_WORDS[@]:1:COMP_CWORD}\")\n"
    "    COMPREPLY=()\n"
    "    while IFS= read -r line; do\n"
    "        case \"$line\" in\n"
    "        :file) mapfile -t COMPREPLY < <(compgen -f -- \"${words[-1]}\"); compopt -o filenames ;;\n"
    "        :directory) mapfile -t COMPREPLY < <(compgen -d -- \"${words[-1]}\"); compopt -o filenames ;;\n"
    "        *) COMPREPLY+=(\"${line%%$'\\t'*}\") ;;\n"
    "        esac\n"
    "    done < <(\"${COMP_WORDS[0]}\" " COMPLETE_WORD " \"${words[@]}\" 2>/dev/null)\n"
    "    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then compopt -o nospace; fi\n"
    "}\n"
    "complete -F _coracle coracle\n";

static const char zsh_script[] =
    "#compdef coracle\n"
    "# zsh completion of coracle; made by: coracle completion zsh\n"
    "_coracle()\n"
    "{\n"
    "    local line\n"
    "    local -a found\n"
    "    for line in \"${(@f)$(\"${words[1]}\" " COMPLETE_WORD " \"${(@)words[2,CURRENT]}\" 2>/dev/null)}\"; do\n"
    "        case \"$line\" in\n"
    "        :file) _files; return ;;\n"
    "        :directory) _files -/; return ;;\n"
    "        ?*) found+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\") ;;\n"
    "        esac\n"
    "    done\n"
    "    _describe coracle found\n"
    "}\n"
    "if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _coracle \"$@\"; else compdef _coracle coracle; fi\n";

static const char fish_script[] = "# fish completion of coracle; made by: coracle completion fish\n"
                                  "function __coracle_complete\n"
                                  "    set -l words (commandline -opc) (commandline -ct)\n"
                                  "    for line in (command $words[1] " COMPLETE_WORD " $words[2..-1] 2>/dev/null)\n"
                                  "        switch $line\n"
                                  "            case :file\n"
                                  "                __fish_complete_path (commandline -ct)\n"
                                  "            case :directory\n"
                                  "                __fish_complete_directories (commandline -ct)\n"
                                  "            case '*'\n"
                                  "                echo $line\n"
                                  "        end\n"
                                  "    end\n"
                                  "end\n"
                                  "complete -c coracle -f -a '(__coracle_complete)'\n";

static int run_completion(struct cli *cli, const struct args *args, struct error **err)
{
    static const char *const shells[][2] = {{"bash", bash_script}, {"zsh", zsh_script}, {"fish", fish_script}};

    for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++) {
        if (strcmp(shells[i][0], args->words[0]) != 0)
            continue;
        if (cli->json) {
            json_t *all = json_pack("{s:s, s:s}", "shell", shells[i][0], "script", shells[i][1]);

            print_json(all);
            json_decref(all);
        } else {
            fputs(shells[i][1], stdout);
        }
        return 0;
    }
    error_set(err, EINVAL, "INVALID_VALUE", "completion: \"%s\" is no shell this is known for", args->words[0]);
    error_hint(err, "bash, zsh or fish");
    return -EINVAL;
}

const struct command command_completion = {
    .name = "completion",
    .section = "This program",
    .synopsis = "bash|zsh|fish",
    .summary = "Print the completion script of a shell",
    .text = "Completes commands, options, their values, and the names of instances, images and networks.",
    .examples = "  source <(coracle completion bash)",
    .words = WORD_LIST,
    .word_list = "bash|zsh|fish",
    .min_words = 1,
    .max_words = 1,
    .run = run_completion,
};
