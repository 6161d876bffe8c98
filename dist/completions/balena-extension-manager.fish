# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_balena_extension_manager_global_optspecs
    string join \n v/version host= log-level= request-timeout= timeout= docker-root= host-root= h/help
end

function __fish_balena_extension_manager_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_balena_extension_manager_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_balena_extension_manager_using_subcommand
    set -l cmd (__fish_balena_extension_manager_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -s v -l version -d 'Print the version'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -f -a "status" -d 'Report the verdict about every extension, the reason, and the next step'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -f -a "plan" -d 'Predict what the next boot, or the next OS, will make of every extension'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -f -a "try" -d 'Run a command with an extension that is not deployed, in a root filesystem as the next boot would make it'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -f -a "logs" -d 'Print the output of the runtime and of the hooks at the last deploy of an extension'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -f -a "inspect" -d 'Print everything that is known about an extension, as JSON'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -f -a "list" -d 'List the extensions, one per line: the id, a tab, the name'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -f -a "doctor" -d 'Check whether this host is set up for extensions, and print how to fix it'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -f -a "cleanup" -d 'Remove failed and dead extensions; with --stale-os, also those built for another OS or kernel'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -f -a "check" -d 'Find what would go wrong with an extension before it ships'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -f -a "override" -d 'Show the kernel overrides of this device, allow a rejected one again, or forget one'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -f -a "history" -d 'Print what has happened to kernel overrides: armed, booted, checked, committed, rejected, and by which command'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -f -a "validate" -d 'Judge the kernel override that is armed: commit it, reject it, or leave it pending'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -f -a "hup" -d 'Keep or leave the armed kernel when an OS update commits or rolls back'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_needs_command" -f -a "simulate" -d 'Play boots, health checks and updates on a directory that stands for a device, and print what happens'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand status" -l format -d 'The output format' -r -f -a "table\t'For people'
json\t'For programs; docs/manager.md describes the fields'
prometheus\t'Metrics for the textfile collector of node_exporter; docs/metrics.md describes them'"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand status" -l output -d 'With --format prometheus: replace FILE instead of printing; if the command fails, FILE is unchanged' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand status" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand status" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand status" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand status" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand status" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand status" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand plan" -l os-root -d 'The OS that will boot, mounted at or unpacked into DIR: its version, the release of its kernel and its files are read' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand plan" -l os-version -d 'The version of the OS that will boot, VERSION_ID of its os-release; what is not stated about it is unknown' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand plan" -l kernel-release -d 'The release of the kernel that will boot: the whole uname -r' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand plan" -l kernel-abi -d 'The ABI of the override that will boot; none: the OS\'s stock kernel' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand plan" -l os-layers -d 'How many layers the OS has [default: as many as are found, else 1]' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand plan" -l page-size -d 'The page size of the kernel that will boot, which limits the options of the overlay [default: that of the running kernel]' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand plan" -l format -d 'The output format' -r -f -a "table\t'For people'
json\t'For programs; docs/manager.md describes the fields'"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand plan" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand plan" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand plan" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand plan" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand plan" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand plan" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand plan" -l files -d 'Print every path that an extension hides, not only the first ten'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand plan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand try" -l with -d 'Of the deployed extensions only this one: an id, a name, or the beginning of an id; repeat it for several [default: all that plan would layer]' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand try" -l label -d 'Add a label that the image will have, or replace one; repeat it for several' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand try" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand try" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand try" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand try" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand try" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand try" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand try" -l writable -d 'Let the command write to the root filesystem; all changes are in memory, and end with it'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand try" -l without-kernel -d 'Accept an extension that brings a kernel, as if it only brought the files'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand try" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand logs" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand logs" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand logs" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand logs" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand logs" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand logs" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand logs" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand inspect" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand inspect" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand inspect" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand inspect" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand inspect" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand inspect" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand inspect" -s h -l help -d 'Print help'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand list" -l format -d 'The output format' -r -f -a "table\t'For people'
json\t'For programs; docs/manager.md describes the fields'"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand list" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand list" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand list" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand list" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand list" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand list" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand list" -s q -l quiet -d 'Print only the ids'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand doctor" -l format -d 'The output format' -r -f -a "table\t'For people'
json\t'For programs; docs/manager.md describes the fields'"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand doctor" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand doctor" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand doctor" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand doctor" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand doctor" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand doctor" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand cleanup" -l wait -d 'How long to wait for an engine that is starting up' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand cleanup" -l format -d 'The output format' -r -f -a "table\t'For people'
json\t'For programs; docs/manager.md describes the fields'"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand cleanup" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand cleanup" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand cleanup" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand cleanup" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand cleanup" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand cleanup" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand cleanup" -l stale-os -d 'Also remove extensions built for another OS or kernel; only after an OS update has committed'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand cleanup" -l force -d 'With --stale-os: continue even if an OS update can still roll back, or if that is unknown'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand cleanup" -l dry-run -d 'Print what would be removed, and remove nothing'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand cleanup" -l verbose -d 'Also print the objects that are kept, with the reason (JSON always contains them)'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand cleanup" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand check" -l allow -d 'Accept all findings of a rule, or those at and below PATH; repeat it, or separate several by commas' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand check" -l against -d 'Compare with the root filesystem of the target host' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand check" -l label -d 'Add a label that the image will have; repeat it for several' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand check" -l machine -d 'The processor of the target host, as `uname -m` or images name it [default: the one of the image, else of ROOT, else of this machine]' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand check" -l format -d 'The output format' -r -f -a "text\t'For people'
json\t'For programs; docs/check.md lists the fields'"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand check" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand check" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand check" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand check" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand check" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand check" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand check" -l rules -d 'List the rules'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and not __fish_seen_subcommand_from status retry forget" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and not __fish_seen_subcommand_from status retry forget" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and not __fish_seen_subcommand_from status retry forget" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and not __fish_seen_subcommand_from status retry forget" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and not __fish_seen_subcommand_from status retry forget" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and not __fish_seen_subcommand_from status retry forget" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and not __fish_seen_subcommand_from status retry forget" -s h -l help -d 'Print help'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and not __fish_seen_subcommand_from status retry forget" -f -a "status" -d 'Print which kernel is armed, runs, is committed, on trial, rejected or published, and which container claims it'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and not __fish_seen_subcommand_from status retry forget" -f -a "retry" -d 'Take a kernel off the list of rejected ones, so that the next start of its extension arms it again'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and not __fish_seen_subcommand_from status retry forget" -f -a "forget" -d 'Remove every record of a kernel but its rejection: it is no longer armed, committed or published'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from status" -l format -d 'The output format' -r -f -a "table\t'For people'
json\t'For programs; docs/manager.md describes the fields'"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from status" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from status" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from status" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from status" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from status" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from status" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from retry" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from retry" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from retry" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from retry" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from retry" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from retry" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from retry" -s h -l help -d 'Print help'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from forget" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from forget" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from forget" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from forget" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from forget" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from forget" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand override; and __fish_seen_subcommand_from forget" -s h -l help -d 'Print help'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand history" -l format -d 'The output format' -r -f -a "table\t'For people'
json\t'For programs; docs/manager.md describes the fields'"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand history" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand history" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand history" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand history" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand history" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand history" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand history" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand validate" -l settle -d 'How long the system may settle before the first health check' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand validate" -l retry -d 'Pause between two health checks' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand validate" -l attempts -d 'How often the health check is run until it succeeds; at least once' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand validate" -l deadline -d 'The time limit of the whole command. A health check that is still running then is no verdict' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand validate" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand validate" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand validate" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand validate" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand validate" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand validate" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand validate" -l no-reboot -d 'Do not reboot after a rejection'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand validate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and not __fish_seen_subcommand_from commit reject" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and not __fish_seen_subcommand_from commit reject" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and not __fish_seen_subcommand_from commit reject" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and not __fish_seen_subcommand_from commit reject" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and not __fish_seen_subcommand_from commit reject" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and not __fish_seen_subcommand_from commit reject" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and not __fish_seen_subcommand_from commit reject" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and not __fish_seen_subcommand_from commit reject" -f -a "commit" -d 'The update is proven: commit the kernel that runs'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and not __fish_seen_subcommand_from commit reject" -f -a "reject" -d 'The update rolls back: arm what the other slot has committed'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and __fish_seen_subcommand_from commit" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and __fish_seen_subcommand_from commit" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and __fish_seen_subcommand_from commit" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and __fish_seen_subcommand_from commit" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and __fish_seen_subcommand_from commit" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and __fish_seen_subcommand_from commit" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and __fish_seen_subcommand_from commit" -s h -l help -d 'Print help'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and __fish_seen_subcommand_from reject" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and __fish_seen_subcommand_from reject" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and __fish_seen_subcommand_from reject" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and __fish_seen_subcommand_from reject" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and __fish_seen_subcommand_from reject" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and __fish_seen_subcommand_from reject" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand hup; and __fish_seen_subcommand_from reject" -s h -l help -d 'Print help'
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand simulate" -l host -d 'The engine\'s socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]' -r -F
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand simulate" -l log-level -d 'Which messages to print to standard error: debug, info, warn or error' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand simulate" -l request-timeout -d 'The time limit of one request to the engine' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand simulate" -l timeout -d 'The time limit of the whole command' -r
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand simulate" -l docker-root -d 'The engine\'s data root, which is read if the engine does not answer [default: the one that the engine reports, else /var/lib/docker, else /mnt/data/docker]' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand simulate" -l host-root -d 'Read the host\'s files below DIR instead of /' -r -f -a "(__fish_complete_directories)"
complete -c balena-extension-manager -n "__fish_balena_extension_manager_using_subcommand simulate" -s h -l help -d 'Print help (see more with \'--help\')'
