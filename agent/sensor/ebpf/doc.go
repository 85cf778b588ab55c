// Package ebpf is the sensor's first choice on Linux: programs on the kernel's
// BTF tracepoints that see every process start and end, and every TCP
// connection, at the moment it happens.
//
// bpf/sensor.c is compiled to sensor.o, which is committed: one object for all
// kernels (CO-RE) and, because BTF tracepoints pass no registers, for all
// little-endian architectures. Debian 12's clang-14 makes the same bytes
// everywhere.
//
// What it takes is found out by trying. Processes need a ring buffer and BTF,
// Linux 5.8 or later; connections also need storage on sockets, 5.11 or later.
package ebpf

//go:generate clang-14 -target bpfel -mcpu=v3 -O2 -g -Wall -Werror -fdebug-compilation-dir=. -c bpf/sensor.c -o sensor.o
//go:generate llvm-strip-14 -g sensor.o
