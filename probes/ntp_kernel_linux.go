package probes

import (
	"time"

	"golang.org/x/sys/unix"
)

// readKernel asks the kernel without changing anything (adjtimex with no mode set).
func readKernel() (Kernel, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return Kernel{}, err
	}
	unit := time.Microsecond
	if t.Status&unix.STA_NANO != 0 {
		unit = time.Nanosecond
	}
	k := Kernel{Synchronised: t.Status&unix.STA_UNSYNC == 0 && state != unix.TIME_ERROR, Offset: time.Duration(t.Offset) * unit, MaxError: time.Duration(t.Maxerror) * time.Microsecond}
	switch state {
	case unix.TIME_INS:
		k.Leap = 1
	case unix.TIME_DEL:
		k.Leap = -1
	}
	return k, nil
}
