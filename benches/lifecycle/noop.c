/* The floor: a program that does nothing. Built statically with the libc of the runtime that it is
 * the floor of; the musl one is also the container that runc and crun run. */
int main(void) { return 0; }
