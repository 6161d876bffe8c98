/* Runs a program and writes one figure about it to a file:
 *
 *   observe peak FILE PROGRAM [ARGUMENT]...    its peak resident set, in KiB
 *   observe faults FILE PROGRAM [ARGUMENT]...  the page faults after its execve
 *   observe steps FILE PROGRAM [ARGUMENT]...   the number of instructions that it executed
 *
 * The figure is about that process alone; its children are not followed and run undisturbed. The exit
 * status is the program's own; 125 means that this program failed.
 *
 * Peak: not wait4's ru_maxrss, which begins at the peak of the memory that a process was started
 * from, and which since Linux 6.2 is off by up to a batch of pages for each CPU: more than a small
 * program has. Instead, the process is stopped on its way out and its page tables are counted.
 *
 * Steps: counted by the CPU's trap flag, so they are the instructions that really ran on this CPU. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* The number in the line of /proc/PID/FILE that begins with NAME, or 0. */
static long field(pid_t pid, const char *file, const char *name) {
    char path[64], line[256];
    long value = 0;
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    FILE *in = fopen(path, "r");
    while (in && fgets(line, sizeof line, in))
        if (strncmp(line, name, strlen(name)) == 0)
            sscanf(line + strlen(name), "%ld", &value);
    if (in)
        fclose(in);
    return value;
}

int main(int argc, char **argv) {
    if (argc < 4)
        return 125;
    int peak = strcmp(argv[1], "peak") == 0, steps = strcmp(argv[1], "steps") == 0;
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execv(argv[3], argv + 3);
        _exit(127);
    }
    int status, signal = 0;
    struct rusage usage;
    long figure = 0;
    if (child < 0 || wait4(child, &status, 0, &usage) != child || !WIFSTOPPED(status))
        return 125;
    long faults_before = usage.ru_minflt;
    ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)(PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL));
    for (;;) {
        if (ptrace(steps ? PTRACE_SINGLESTEP : PTRACE_CONT, child, NULL, (void *)(long)signal))
            return 125;
        if (wait4(child, &status, 0, &usage) != child)
            return 125;
        if (!WIFSTOPPED(status))
            break;
        signal = 0;
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8)) {
            /* The higher one: resident now, counted exactly, or the mark it left when it shrank. */
            long now = field(child, "smaps_rollup", "Rss:"), mark = field(child, "status", "VmHWM:");
            if (peak)
                figure = now > mark ? now : mark;
        } else if (WSTOPSIG(status) == SIGTRAP) {
            figure += steps;
        } else {
            signal = WSTOPSIG(status);
        }
    }
    /* A program with threads may end without the stop; it is then large enough for ru_maxrss. */
    if (peak && figure == 0)
        figure = usage.ru_maxrss;
    if (!peak && !steps)
        figure = usage.ru_minflt - faults_before;
    FILE *out = fopen(argv[2], "w");
    if (!out || fprintf(out, "%ld", figure) < 0 || fclose(out))
        return 125;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
