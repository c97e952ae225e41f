//go:build !linux

package probes

import "errors"

func readKernel() (Kernel, error) {
	return Kernel{}, errors.New("this system has no adjtimex that is read here")
}
