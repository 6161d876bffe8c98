/* Runs a program and writes one figure about it to a file:
 *
 *   observe peak FILE PROGRAM [ARGUMENT]...    its peak resident set, in KiB
 *   observe steps FILE PROGRAM [ARGUMENT]...   how many instructions it executed
 *
 * Of that process alone: what it starts is not followed, and runs undisturbed. The status is the
 * program's own; 125 is for a failure of this one.
 *
 * Peak: not wait4's ru_maxrss, which begins at the peak of the memory that a process was started
 * from, and which since Linux 6.2 is off by up to a batch of pages for each CPU: more than a small
 * program has. The process is stopped on its way out instead, and its page tables are counted.
 *
 * Steps: the CPU's trap flag, so what is counted is what really ran, on this CPU's code paths. */
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
    int stepping = strcmp(argv[1], "steps") == 0;
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execv(argv[3], argv + 3);
        _exit(127);
    }
    int status, signal = 0;
    struct rusage usage;
    long steps = 0, peak = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
        return 125;
    ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)(PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL));
    for (;;) {
        if (ptrace(stepping ? PTRACE_SINGLESTEP : PTRACE_CONT, child, NULL, (void *)(long)signal))
            return 125;
        if (wait4(child, &status, 0, &usage) != child)
            return 125;
        if (!WIFSTOPPED(status))
            break;
        signal = 0;
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8)) {
            /* The higher one: resident now, counted exactly, or the mark it left when it shrank. */
            long now = field(child, "smaps_rollup", "Rss:"), mark = field(child, "status", "VmHWM:");
            peak = now > mark ? now : mark;
        } else if (WSTOPSIG(status) == SIGTRAP) {
            steps++;
        } else {
            signal = WSTOPSIG(status);
        }
    }
    /* A program with threads may end without the stop; it is then large enough for ru_maxrss. */
    if (peak == 0)
        peak = usage.ru_maxrss;
    FILE *out = fopen(argv[2], "w");
    if (!out || fprintf(out, "%ld", stepping ? steps : peak) < 0 || fclose(out))
        return 125;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
