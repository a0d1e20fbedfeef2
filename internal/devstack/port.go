package devstack

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

const host = "127.0.0.1"

func address(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// choosePort is port if nobody listens there, or a free one for 0. flag is what a person chooses
// another one with.
func choosePort(port int, flag string) (int, error) {
	if port == 0 {
		return freePort()
	}
	listener, err := net.Listen("tcp", address(port))
	if err != nil {
		return 0, portError(err, port, flag)
	}
	return port, listener.Close()
}

func portError(err error, port int, flag string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %d is in use: stop what listens there, or choose another with %s (0 takes a free one)", port, flag)
	}
	return fmt.Errorf("port %d (%s): %w", port, flag, err)
}

// freePort finds a port for a child to listen on. One connection is made and closed from the
// server's side: while it is in TIME_WAIT, for about a minute, the kernel hands the port to nobody
// who asks for any port, yet a server that sets SO_REUSEADDR can listen on it. Temporal's own
// development server finds its inner ports in the same way.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", address(0))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return listener.Addr().(*net.TCPAddr).Port, server.Close()
}
