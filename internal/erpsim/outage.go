package erpsim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// Outage is a way to be away.
type Outage int

const (
	// Busy answers 503 with Retry-After.
	Busy Outage = iota + 1
	// Hanging takes requests and does not answer.
	Hanging
	// Refusing takes no connections.
	Refusing
)

func (o Outage) String() string { return [...]string{"none", "busy", "hanging", "refusing"}[o] }

// Outages are all of them.
var Outages = []Outage{Busy, Hanging, Refusing}

// retryAfter is what a busy ERP asks for.
const retryAfter = time.Second

// door is where requests come in, or do not.
type door struct {
	mu                sync.Mutex
	outage            Outage
	over              chan struct{} // closed when the outage is over
	requests, refused int

	address string // once it listens
	server  *http.Server
	release func() // of the port, while no server has it
}

func newDoor() door { return door{over: make(chan struct{})} }

func (d *door) counts() (requests, refused int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.requests, d.refused
}

// enter lets a request in, or deals with it.
func (d *door) enter(w http.ResponseWriter, r *http.Request) bool {
	d.mu.Lock()
	d.requests++
	outage, over := d.outage, d.over
	if outage != 0 {
		d.refused++
	}
	d.mu.Unlock()
	switch outage {
	case 0:
		return true
	case Busy:
		w.Header().Set("Retry-After", fmt.Sprint(int(retryAfter.Seconds())))
		http.Error(w, "the ERP is down for maintenance", http.StatusServiceUnavailable)
	case Hanging:
		select {
		case <-over:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	case Refusing: // the connection is about to be closed
		panic(http.ErrAbortHandler)
	}
	return false
}

// Listen serves HTTP at an address, 127.0.0.1:0 for a free port, until Close.
func (s *ERP) Listen(address string) error {
	s.door.mu.Lock()
	defer s.door.mu.Unlock()
	if s.door.address != "" {
		return errors.New("the ERP listens already")
	}
	return s.listen(address)
}

// listen is called with the door locked.
func (s *ERP) listen(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	s.door.address, s.door.server = listener.Addr().String(), server
	go func() { _ = server.Serve(listener) }() // it ends with the server's Close
	return nil
}

// URL is what ERP_URL is to be. It stays the same through outages.
func (s *ERP) URL() string {
	s.door.mu.Lock()
	defer s.door.mu.Unlock()
	return "http://" + s.door.address
}

// Down begins an outage, or another kind of one.
func (s *ERP) Down(o Outage) error {
	d := &s.door
	d.mu.Lock()
	defer d.mu.Unlock()
	if o < Busy || o > Refusing {
		return fmt.Errorf("there is no outage %d", o)
	}
	if err := s.up(); err != nil {
		return err
	}
	d.outage = o
	if o != Refusing || d.server == nil {
		return nil
	}
	err := d.server.Close()
	d.server = nil
	if err == nil {
		// Else a connection of this machine may be given the port meanwhile.
		d.release, err = reserve(d.address)
	}
	return err
}

// Up ends an outage, if there is one.
func (s *ERP) Up() error {
	s.door.mu.Lock()
	defer s.door.mu.Unlock()
	return s.up()
}

func (s *ERP) up() error {
	d := &s.door
	if d.outage == 0 {
		return nil
	}
	if d.server == nil && d.address != "" {
		d.free()
		if err := s.listen(d.address); err != nil {
			return err
		}
	}
	d.outage = 0
	close(d.over)
	d.over = make(chan struct{})
	return nil
}

// free lets go of a reserved port.
func (d *door) free() {
	if d.release != nil {
		d.release()
		d.release = nil
	}
}

// Struggle has an outage now and then, until ctx ends: one begins in the mean every so often and lasts as
// long as it says, twice that at most. The seed decides when, how long and of which kind.
func (s *ERP) Struggle(ctx context.Context, seed uint64, every, lasting time.Duration) error {
	r := rand.New(rand.NewPCG(seed, 1))
	for {
		if !pause(ctx, time.Duration(r.ExpFloat64()*float64(every))) {
			return nil
		}
		if err := s.Down(Outages[r.IntN(len(Outages))]); err != nil {
			return err
		}
		pause(ctx, 1+time.Duration(r.Int64N(2*int64(lasting))))
		if err := s.Up(); err != nil {
			return err
		}
	}
}

// pause tells whether the time has passed before ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Close ends the service at once.
func (s *ERP) Close() error {
	s.door.mu.Lock()
	defer s.door.mu.Unlock()
	s.door.free()
	if s.door.server == nil {
		return nil
	}
	server := s.door.server
	s.door.server = nil
	return server.Close()
}
