package target

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// cut is what a proxy does to a statement.
type cut int

const (
	pass      cut = iota
	cutBefore     // the server never sees it
	cutAfter      // the server has answered it, the client never sees the answer
)

// proxy stands between the driver and the server and cuts connections at chosen statements.
type proxy struct {
	server string
	// at decides about each statement. It may block, to hold a statement back.
	at atomic.Pointer[func(statement string) cut]
	// cuts counts the connections that were cut.
	cuts atomic.Int64
}

// throughProxy is a target whose connections go through a proxy, which passes everything at first.
func throughProxy(t testing.TB, dsn string) (*Target, *proxy) {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{server: cfg.Addr}
	p.set(func(string) cut { return pass })
	var open sync.WaitGroup
	open.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			open.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		open.Wait()
	})
	cfg.Addr = listener.Addr().String()
	return openTarget(t, cfg.FormatDSN()), p // closed first: cleanups run backwards
}

func (p *proxy) set(at func(statement string) cut) { p.at.Store(&at) }

// cutOnce cuts at the n-th statement from now (0 is the next) and passes all others.
func (p *proxy) cutOnce(n int64, how cut) {
	var seen atomic.Int64
	p.set(func(string) cut {
		if seen.Add(1) == n+1 {
			return how
		}
		return pass
	})
}

func (p *proxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	var swallow atomic.Bool
	var answers sync.WaitGroup
	answers.Go(func() {
		// Ends the client's side as well, which ends the loop below.
		defer func() { _ = client.Close() }()
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if err != nil || swallow.Load() {
				return
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	for {
		packet, err := readPacket(client)
		if err != nil {
			break
		}
		how := pass
		if statement, ok := query(packet); ok {
			how = (*p.at.Load())(statement)
		}
		if how != pass {
			p.cuts.Add(1)
		}
		if how == cutBefore {
			break
		}
		swallow.Store(how == cutAfter)
		if _, err := server.Write(packet); err != nil {
			break
		}
		if how == cutAfter {
			answers.Wait() // until the server has answered
			break
		}
	}
	_ = server.Close()
	answers.Wait()
}

// readPacket reads one packet of the client/server protocol with its header: three bytes of
// length, one of sequence.
func readPacket(r io.Reader) ([]byte, error) {
	packet := make([]byte, 4)
	if _, err := io.ReadFull(r, packet); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint32(packet) & 0xffffff
	packet = append(packet, make([]byte, length)...)
	if _, err := io.ReadFull(r, packet[4:]); err != nil {
		return nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	return packet, nil
}

// query is the statement of a COM_QUERY. The handshake's packets have other sequence numbers than 0.
func query(packet []byte) (string, bool) {
	const comQuery = 3
	if packet[3] != 0 || len(packet) < 5 || packet[4] != comQuery {
		return "", false
	}
	return strings.TrimSpace(string(packet[5:])), true
}
