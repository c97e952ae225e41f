package main

import "golang.org/x/sys/unix"

// monotonicMicroseconds is what systemd compares a reload with (sd_notify, MONOTONIC_USEC).
func monotonicMicroseconds() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0
	}
	return now.Nano() / 1000
}
