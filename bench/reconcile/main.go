// Command reconcile measures the comparison of both ends: it fills an ERP's table and a target with the
// same orders, by SQL, tampers with some of the target's, and walks both as a worker does. It prints how
// long that took, the most memory that this process, which does nothing but the walk then, had in use,
// and whether exactly what was tampered with was found.
//
// The orders have some 300 bytes of JSON each. The target's have their keys in another order than the
// ERP's, and other numerals, as MySQL would write them: only their meaning is the same.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"ordersync/bench/rig"
	"ordersync/internal/devstack"
	"ordersync/internal/erp"
	"ordersync/internal/order"
	"ordersync/internal/reconcile"
	"ordersync/internal/target"
)

func main() { rig.Main("reconcile", &options{}) }

// options are those of the command line.
type options struct {
	orders, tampered, pageSize, mebibytes int
}

// Define implements rig.Benchmark.
func (o *options) Define(flags *flag.FlagSet) {
	flags.IntVar(&o.orders, "orders", 1_000_000, "orders on each side")
	flags.IntVar(&o.tampered, "tampered", 100, "orders of the target that are tampered with: a quarter each is changed, set back, deleted, added")
	flags.IntVar(&o.pageSize, "page-size", 0, "orders compared at a time (default: as a worker does)")
	flags.IntVar(&o.mebibytes, "max-mib", 150, "fail if the process needs more memory than this")
}

// Check implements rig.Benchmark.
func (o *options) Check() error {
	if o.orders < 1 || o.tampered < 0 || o.tampered%4 != 0 || o.tampered > o.orders {
		return errors.New("-orders must be at least 1, and -tampered a multiple of 4 that is not above it")
	}
	return nil
}

// Run implements rig.Benchmark.
func (o *options) Run(ctx context.Context, r *rig.Run) (err error) {
	r.Say("starting MySQL")
	server, err := devstack.StartMySQL(ctx, devstack.MySQLOptions{Dir: r.Dir, Logger: r.Log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx))) }()
	b := &bench{Run: r, options: *o, erpDSN: server.DSN("erp"), shopDSN: server.DSN("shop")}
	r.Say("filling both sides with %d orders each", o.orders)
	if err := b.fill(ctx); err != nil {
		return err
	}
	r.Say("comparing")
	return b.measure(ctx)
}

// bench is both ends.
type bench struct {
	*rig.Run
	options
	erpDSN, shopDSN string
	// tamperedWith are the classes that must be found.
	tamperedWith map[string]order.Drift
}

// numbers is a table of all numbers from 0 to below 10^7, by joining digits: not every server can make a
// sequence.
const numbers = `(SELECT a.d + 10*b.d + 100*c.d + 1000*d.d + 10000*e.d + 100000*f.d + 1000000*g.d AS n
	FROM digits a, digits b, digits c, digits d, digits e, digits f, digits g)`

// ordersQuery is what a team would write for its ERP.
const ordersQuery = `SELECT id AS sync_id, 'online' AS channel, version, document AS data, changed_at FROM sales_orders`

// fill makes the tables. The statements take longer than the target's own connections allow.
func (b *bench) fill(ctx context.Context) error {
	shop, err := target.Open(b.shopDSN, target.Options{Logger: b.Log})
	if err != nil {
		return err
	}
	defer shop.Close() //nolint:errcheck // nothing is pending
	if err := shop.Migrate(ctx); err != nil {
		return err
	}
	db, err := sql.Open("mysql", b.shopDSN)
	if err != nil {
		return err
	}
	defer db.Close()
	const chunk = 100_000
	statements := []string{
		`CREATE TABLE erp.sales_orders (id BIGINT PRIMARY KEY, version BIGINT NOT NULL, document JSON NOT NULL, changed_at DATETIME(6) NOT NULL)`,
		`CREATE TABLE erp.digits (d INT PRIMARY KEY)`,
		`CREATE TABLE digits (d INT PRIMARY KEY)`,
		`INSERT INTO erp.digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)`,
		`INSERT INTO digits SELECT * FROM erp.digits`,
		`CREATE TABLE numbers (n INT PRIMARY KEY) AS SELECT n FROM ` + numbers + ` AS all_numbers WHERE n < ` + strconv.Itoa(b.orders),
	}
	for from := 0; from < b.orders; from += chunk {
		within := fmt.Sprintf(`WHERE n >= %d AND n < %d`, from, from+chunk)
		statements = append(statements,
			`INSERT INTO erp.sales_orders SELECT n, 1 + n MOD 7, CONCAT('{"order": ', n, ', "customer": "customer-', n MOD 5003,
				'", "placed_at": "2026-01-02T03:04:05Z", "lines": [{"sku": "85123A", "quantity": 6, "price": 2.50, "name": "WHITE HANGING HEART T-LIGHT HOLDER"},',
				' {"sku": "71053", "quantity": ', 1 + n MOD 12, ', "price": 3.39, "name": "WHITE METAL LANTERN"}], "total": ', n MOD 977, '.0, "note": "caf\\u00e9"}'),
				'2026-01-02 03:04:05' FROM numbers `+within,
			`INSERT INTO orders (sync_id, channel, data, version, status, created_at, updated_at)
				SELECT n, 'online', CONCAT('{"note":"café","total":', n MOD 977, ',"lines":[{"name":"WHITE HANGING HEART T-LIGHT HOLDER","price":2.5,"quantity":6,"sku":"85123A"},',
				'{"name":"WHITE METAL LANTERN","price":3.39,"quantity":', 1 + n MOD 12, ',"sku":"71053"}],"placed_at":"2026-01-02T03:04:05Z","customer":"customer-', n MOD 5003,
				'","order":', n, '}'), 1 + n MOD 7, 'open', NOW(3), NOW(3) FROM numbers `+within)
	}
	b.tamperedWith = map[string]order.Drift{}
	for i := range b.tampered {
		id := strconv.Itoa(i * (b.orders / max(b.tampered, 1)))
		switch i % 4 {
		case 0:
			statements = append(statements, `UPDATE orders SET data = REPLACE(data, '"price":3.39', '"price":0.39') WHERE sync_id = `+quote(id))
			b.tamperedWith[id] = order.DriftDifferent
		case 1:
			statements = append(statements, `UPDATE erp.sales_orders SET version = 9 WHERE id = `+id, `UPDATE orders SET version = 8 WHERE sync_id = `+quote(id))
			b.tamperedWith[id] = order.DriftStale
		case 2:
			statements = append(statements, `DELETE FROM orders WHERE sync_id = `+quote(id))
			b.tamperedWith[id] = order.DriftMissing
		case 3:
			statements = append(statements, `DELETE FROM erp.sales_orders WHERE id = `+id)
			b.tamperedWith[id] = order.DriftExtra
		}
	}
	for _, statement := range append(statements, `ANALYZE TABLE orders`) {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%w: %s", err, statement)
		}
	}
	return nil
}

func quote(id string) string { return "'" + id + "'" }

// measure walks, and prints what came of it.
func (b *bench) measure(ctx context.Context) error {
	out := b.Result
	query := filepath.Join(b.Dir, "orders.sql")
	if err := os.WriteFile(query, []byte(ordersQuery), 0o600); err != nil {
		return err
	}
	source, err := erp.Open(erp.Options{Kind: erp.MySQL, URL: b.erpDSN, QueriesDir: b.Dir, OrdersQuery: query, Logger: b.Log})
	if err != nil {
		return err
	}
	defer source.Close() //nolint:errcheck // it was read only
	shop, err := target.Open(b.shopDSN, target.Options{Logger: b.Log})
	if err != nil {
		return err
	}
	defer shop.Close() //nolint:errcheck // nothing is pending
	reconciler := reconcile.New(reconcile.Options{ERP: source, Target: shop, Logger: b.Log})
	walk := order.Walk{PageSize: b.pageSize, Found: order.Reconciliation{RunID: uuid.NewString(), StartedAt: time.Now().UTC()}}

	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		fmt.Fprintln(out, "the memory is that of the whole run: its mark cannot be set back:", err)
	}
	began := time.Now()
	found, err := reconciler.Reconcile(ctx, walk, func(order.Walk) {})
	if err != nil {
		return err
	}
	took := time.Since(began)
	peak, err := peakMemory()
	if err != nil {
		return err
	}
	size, err := dataSize(ctx, shop)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d orders of the ERP and %d of the target, %d bytes of data each: %v, %.0f orders/s (a side)\n",
		found.ERPOrders, found.TargetOrders, size, took.Round(time.Millisecond), float64(found.ERPOrders)/took.Seconds())
	fmt.Fprintf(out, "memory of this process: %.1f MiB at most\n", peak)
	wrong := len(found.Findings) != min(b.tampered, order.MaxFindings) || found.Drifted() != int64(b.tampered)
	for _, f := range found.Findings {
		wrong = wrong || b.tamperedWith[f.SyncID] != f.Class
	}
	if wrong {
		return fmt.Errorf("tampered with %d orders, found %d: %v", b.tampered, found.Drifted(), found.Counts)
	}
	fmt.Fprintf(out, "all %d that were tampered with were found, and no other: %v\n", b.tampered, found.Counts)
	if peak > float64(b.mebibytes) {
		return fmt.Errorf("more memory than %d MiB", b.mebibytes)
	}
	return nil
}

func dataSize(ctx context.Context, shop *target.Target) (n int, err error) {
	return n, shop.DB().QueryRowContext(ctx, `SELECT LENGTH(data) FROM orders LIMIT 1`).Scan(&n)
}

// peakMemory is the most that was resident, in MiB.
func peakMemory() (float64, error) {
	file, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kibibytes, err := strconv.Atoi(strings.Fields(rest)[0])
			return float64(kibibytes) / 1024, err
		}
	}
	return 0, errors.New("the system does not tell the memory's peak")
}
