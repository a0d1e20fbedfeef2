//go:build unix

package erpsim

import (
	"fmt"
	"net/netip"
	"syscall"
)

// reserve keeps a port of IPv4 without listening on it: who connects is refused, and nobody else gets it.
func reserve(address string) (release func(), err error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	syscall.ForkLock.RLock() // a child would keep it
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("reserve %s: %w", address, err)
	}
	err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
	}
	if err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("reserve %s: %w", address, err)
	}
	return func() { _ = syscall.Close(fd) }, nil
}
