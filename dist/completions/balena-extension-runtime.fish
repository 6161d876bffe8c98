# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_balena_extension_runtime_global_optspecs
    string join \n root= docker-root= log= log-format= log-level= debug systemd-cgroup rootless= criu= cgroup-manager= v/version h/help
end

function __fish_balena_extension_runtime_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_balena_extension_runtime_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_balena_extension_runtime_using_subcommand
    set -l cmd (__fish_balena_extension_runtime_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -l root -d 'state root [$XDG_RUNTIME_DIR/balena-extension-runtime if set, else /run/balena-extension-runtime]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -l docker-root -d 'data root of the engine, whose container store has the labels [derived from the rootfs, else /var/lib/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -l log -d 'append the log to FILE [errors to standard error]' -r -F
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -l log-format -d 'text or json [text]' -r -f
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -l log-level -d 'debug, info, warn or error [info]' -r -f
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -l rootless -d 'accepted without effect' -r
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -l criu -d 'accepted without effect' -r -F
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -l cgroup-manager -d 'accepted without effect' -r -f
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -l debug -d 'the same as --log-level debug'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -l systemd-cgroup -d 'accepted without effect'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -s v -l version -d 'print the version'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -s h -l help -d 'print this text; after a command, that command\'s'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -f -a "create" -d 'check the extension, run hooks/create, start the proxy process'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -f -a "start" -d 'run hooks/start and end the proxy'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -f -a "kill" -d 'send a signal to the proxy'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -f -a "delete" -d 'run hooks/delete and forget the container'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -f -a "state" -d 'print the OCI state as JSON'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -f -a "ps" -d 'print the pid of the proxy'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -f -a "features" -d 'print what this runtime supports as JSON'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -f -a "update" -d 'accepted without effect: there are no resources to change'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -f -a "run" -d 'create, start and delete in one, output to this terminal'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_needs_command" -f -a "list" -d 'list the containers under the state root'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand create" -s b -l bundle -d 'the OCI bundle [the working directory]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand create" -l pid-file -d 'write the proxy\'s pid, decimal, without a newline' -r -F
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand create" -l console-socket -d 'unix socket for the pty, if process.terminal is true' -r -F
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand create" -l preserve-fds -d 'accepted without effect' -r -f
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand create" -l pidfd-socket -d 'accepted without effect' -r -F
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand create" -l no-pivot -d 'accepted without effect'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand create" -l no-new-keyring -d 'accepted without effect'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand create" -l detach -d 'accepted without effect'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand kill" -s a -l all -d 'the same, but silent when the container has stopped'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand delete" -s f -l force -d 'in any status: end what is under way, or was left by a killed command, and kill the proxy first. An unknown ID is a silent success. A damaged state is removed, too; a proxy that it does not identify is named, not killed. What cannot be identified as a state of this runtime is kept'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand ps" -s f -l format -d 'table or json [table]' -r -f
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand run" -s b -l bundle -d 'the OCI bundle [the working directory]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand run" -l pid-file -d 'write the proxy\'s pid' -r -F
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand run" -l console-socket -d 'unix socket for the pty, if process.terminal is true [this terminal]' -r -F
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand run" -l keep -d 'keep the stopped container; delete ID removes it'
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand list" -s f -l format -d 'table or json [table]' -r -f
complete -c balena-extension-runtime -n "__fish_balena_extension_runtime_using_subcommand list" -s q -l quiet -d 'ids only, one a line'
