package target

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"ordersync/internal/order"
)

// deliver applies a step as the workflow does: again after every retryable failure. It tells how
// often it failed.
func deliver(ctx context.Context, target *Target, step order.Step) (result order.Result, failures []string, err error) {
	for range 100 {
		result, err = target.Apply(ctx, step)
		if err == nil {
			return result, failures, nil
		}
		var failure *order.Failure
		if !errors.As(err, &failure) || failure.Permanent || failure.Operator {
			return result, failures, err
		}
		failures = append(failures, failure.Type)
	}
	return result, failures, fmt.Errorf("does not heal: %w", err)
}

// The connection is lost at every statement of a step in turn, before the server saw it or after
// it did, COMMIT included. Delivered again, the step has happened once.
func TestLostConnection(t *testing.T) {
	b := setup(t)
	target, proxy := throughProxy(t, b.dsn)
	var orders, invoices, events int64
	for _, test := range []struct {
		name       string
		before     []order.Kind
		kind       order.Kind
		statements int64 // of the transaction: BEGIN, lock, ledger, writes, COMMIT
	}{
		{"creation", nil, creation, 5},
		{"update", []order.Kind{creation}, update, 5},
		{"invoice", []order.Kind{creation}, invoice, 6},
	} {
		for n := range test.statements {
			for _, how := range []cut{cutBefore, cutAfter} {
				id := fmt.Sprintf("%s-%d-%d", test.name, n, how)
				for i, kind := range test.before {
					b.apply(t, step(id, kind, int64(i+1)))
				}
				s := step(id, test.kind, 9)
				if err := target.CheckSchema(t.Context()); err != nil { // there is a connection
					t.Fatal(err)
				}
				cuts := proxy.cuts.Load()
				proxy.cutOnce(n, how)
				_, err := target.Apply(t.Context(), s)
				proxy.set(func(string) cut { return pass })
				if proxy.cuts.Load() != cuts+1 {
					t.Fatalf("%s: %d connections were cut, want 1", id, proxy.cuts.Load()-cuts)
				}
				var failure *order.Failure
				if !errors.As(err, &failure) || failure.Type != "TargetUnavailable" || failure.Permanent || failure.Operator {
					t.Errorf("%s: got %v, want TargetUnavailable", id, err)
				}

				got, _, err := deliver(t.Context(), target, s)
				committed := n == test.statements-1 && how == cutAfter
				want := order.Result{Outcome: order.Applied, Status: order.Open, Duplicate: committed}
				if test.kind == invoice {
					want.Status = order.Invoiced
				}
				if err != nil || got != want {
					t.Errorf("%s: got %+v (%v), want %+v", id, got, err, want)
				}
				orders++
				events += int64(len(test.before)) + 1
				if test.kind == invoice {
					invoices++
				}
				b.wantCounts(t, orders, invoices, events)
			}
		}
	}
}

// While the lookup after a duplicate fails, nothing is known: the step is retried.
func TestLostConnectionAfterDuplicate(t *testing.T) {
	b := setup(t)
	target, proxy := throughProxy(t, b.dsn)
	s := step("1", creation, 1)
	b.apply(t, s)
	proxy.set(func(statement string) cut {
		if strings.HasPrefix(statement, "SELECT e.kind") {
			return cutBefore
		}
		return pass
	})
	var failure *order.Failure
	if got, err := target.Apply(t.Context(), s); !errors.As(err, &failure) || failure.Type != "TargetUnavailable" {
		t.Errorf("got %+v, %v; want TargetUnavailable", got, err)
	}
}

// Two creations of an order that neither of them sees, for there is no row to lock.
func TestCreationsThatMeet(t *testing.T) {
	b := setup(t)
	target, proxy := throughProxy(t, b.dsn)
	var met sync.WaitGroup
	met.Add(2)
	var ledgerInserts atomic.Int64
	proxy.set(func(statement string) cut {
		if strings.HasPrefix(statement, "INSERT INTO order_events") && ledgerInserts.Add(1) <= 2 {
			met.Done()
			met.Wait() // both have looked for the order before either writes
		}
		return pass
	})
	steps := []order.Step{step("1", creation, 1), step("1", creation, 2)}
	failures := make([][]string, 2)
	var both sync.WaitGroup
	for i, s := range steps {
		both.Go(func() {
			var err error
			if _, failures[i], err = deliver(t.Context(), target, s); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if all := slices.Concat(failures...); len(all) != 1 || all[0] != "DuplicateKey" {
		t.Errorf("failures: got %v, want one DuplicateKey", all)
	}
	b.wantCounts(t, 1, 0, 2)
	row, _, err := b.Order(t.Context(), "1")
	if err != nil || row.Version != 2 || !sameJSON(t, row.Data, steps[1].Event.Data) {
		t.Errorf("row: got v%d %s (%v), want the data of v2", row.Version, row.Data, err)
	}
}

func TestConcurrentDeliveriesOfOneEvent(t *testing.T) {
	b := setup(t)
	b.apply(t, step("present", creation, 1))
	for _, test := range []struct {
		name string
		step order.Step
	}{
		{"creation", step("absent", creation, 1)},
		{"update as an insert", inserting(step("other", update, 1))},
		{"update", step("present", update, 2)},
		{"invoice", step("present", invoice, 3)},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := b.counts(t)
			const deliveries = 24
			results := make([]order.Result, deliveries)
			var all sync.WaitGroup
			for i := range deliveries {
				all.Go(func() {
					var err error
					if results[i], _, err = deliver(t.Context(), b.Target, test.step); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			first := 0
			for _, r := range results {
				if r.Outcome != order.Applied {
					t.Errorf("got %+v, want applied", r)
				}
				if !r.Duplicate {
					first++
				}
			}
			after := b.counts(t)
			if first != 1 || after[2] != before[2]+1 {
				t.Errorf("applied %d times, %d ledger rows, want 1 and 1", first, after[2]-before[2])
			}
		})
	}
	b.wantCounts(t, 3, 1, 5)
}

// More of them at a time than there are connections, of an order and of its neighbours.
func TestConcurrentEventsOfOneOrder(t *testing.T) {
	b := setup(t)
	const orders, versions = 4, 12
	var all sync.WaitGroup
	for id := range orders {
		for version := range int64(versions) {
			for _, kind := range order.Kinds {
				all.Go(func() {
					s := inserting(step(fmt.Sprint(id), kind, version+1))
					for {
						result, _, err := deliver(t.Context(), b.Target, s)
						if err != nil {
							t.Errorf("%s: %v", s.Event.Name(), err)
							return
						}
						if result.Outcome != order.Missing { // an invoice that came first
							return
						}
					}
				})
			}
		}
	}
	all.Wait()
	b.wantCounts(t, orders, orders*versions, orders*versions*3)
	for id := range orders {
		row, _, err := b.Order(t.Context(), fmt.Sprint(id))
		if err != nil || row.Version != versions || row.Status != order.Invoiced {
			t.Errorf("order %d: got v%d %s (%v), want v%d invoiced", id, row.Version, row.Status, err, versions)
		}
		// orders.data never goes back: what was applied stands in the order of its versions.
		entries, err := b.Timeline(t.Context(), fmt.Sprint(id))
		if err != nil {
			t.Fatal(err)
		}
		var newest int64
		for _, e := range entries {
			if e.Kind != invoice && e.Outcome == order.Applied {
				if e.Version < newest {
					t.Errorf("order %d: v%d was applied after v%d", id, e.Version, newest)
				}
				newest = e.Version
			}
		}
	}
}
