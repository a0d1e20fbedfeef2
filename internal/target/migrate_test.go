package target

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
)

func wantError(t testing.TB, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q in it", err, part)
		}
	}
}

func (b bundle) tables(t testing.TB) (n int) {
	t.Helper()
	if err := b.DB().QueryRow("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func unmigrated(t testing.TB) bundle {
	dsn := devtest.MySQL(t)
	return bundle{Target: openTarget(t, dsn), dsn: dsn}
}

func TestMigrateRepeatedAndAtOnce(t *testing.T) {
	b := unmigrated(t)
	wantError(t, b.CheckSchema(t.Context()), "ordersync setup")
	var all sync.WaitGroup
	for range 8 {
		target := openTarget(t, b.dsn)
		all.Go(func() {
			for range 2 {
				if err := target.Migrate(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if err := b.CheckSchema(t.Context()); err != nil {
		t.Error(err)
	}
	var applied int64
	if err := b.DB().QueryRow("SELECT COUNT(*) FROM " + versionTable + " WHERE version_id > 0").Scan(&applied); err != nil || applied != schemaVersion() {
		t.Errorf("%d migrations were applied (%v), want each once: %d", applied, err, schemaVersion())
	}
	b.apply(t, step("1", creation, 1))
	if err := b.Migrate(t.Context()); err != nil {
		t.Error(err)
	}
	b.wantCounts(t, 1, 0, 1)
}

func TestEveryMigrationNamesItsTables(t *testing.T) {
	b := setup(t)
	if got := b.tables(t); got != len(created)+1 {
		t.Errorf("%d tables, but created names %d beside %s", got, len(created), versionTable)
	}
}

func TestMigrateRefusesForeignTables(t *testing.T) {
	for _, test := range []struct{ name, team, table string }{
		{"orders", "CREATE TABLE orders (id INT PRIMARY KEY)", "orders"},
		{"invoices", "CREATE TABLE invoices (id INT PRIMARY KEY) COMMENT='from the shop'", "invoices"},
		{"a view", "CREATE VIEW order_events AS SELECT 1 AS id", "order_events"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := unmigrated(t)
			b.exec(t, test.team)
			b.exec(t, "CREATE TABLE customers (id INT PRIMARY KEY)") // in nobody's way
			wantError(t, b.Migrate(t.Context()), "did not make", test.table, "schema of its own")
			if got := b.tables(t); got != 2 {
				t.Errorf("the refused setup left %d tables, want 2", got)
			}
			wantError(t, b.CheckSchema(t.Context()), "ordersync setup")
			b.exec(t, "DROP "+map[bool]string{true: "VIEW ", false: "TABLE "}[test.name == "a view"]+test.table)
			if err := b.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// What a setup that was killed leaves: MySQL commits each CREATE TABLE by itself.
func TestMigrateGoesOnWhereItWasKilled(t *testing.T) {
	for name, undo := range map[string][]string{
		"before the first version": {"DROP TABLE orders, invoices, order_events", "DELETE FROM " + versionTable},
		"between table and version": {
			"DROP TABLE invoices, order_events", "DELETE FROM " + versionTable + " WHERE version_id > 0"},
		"at the last versions": {"DELETE FROM " + versionTable + " WHERE version_id >= 4"},
		"within the last":      {"DELETE FROM " + versionTable + " WHERE version_id >= 6", "DROP TABLE " + compatibilityTable},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			for _, statement := range undo {
				b.exec(t, statement)
			}
			wantError(t, b.CheckSchema(t.Context()), "ordersync setup")
			if err := b.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := b.CheckSchema(t.Context()); err != nil {
				t.Error(err)
			}
			b.apply(t, step("1", creation, 1))
			b.apply(t, step("1", invoice, 1))
			b.wantCounts(t, 1, 1, 2)
		})
	}
}

func TestSchemaOfAnotherVersion(t *testing.T) {
	b := setup(t)
	b.exec(t, "INSERT INTO "+versionTable+" (version_id, is_applied) VALUES (99, TRUE)")
	wantError(t, b.CheckSchema(t.Context()), "99", "newer", "deploy")
	wantError(t, b.Migrate(t.Context()), "99", "newer", "deploy")
	b.exec(t, "DELETE FROM "+versionTable+" WHERE version_id >= 3")
	wantError(t, b.CheckSchema(t.Context()), "version 2", "ordersync setup")
}

// A release works with a newer schema where the migrations say so, and its setup then leaves it alone.
func TestNewerSchemaThatIsCompatible(t *testing.T) {
	b := setup(t)
	newer := schemaVersion() + 2
	b.exec(t, "INSERT INTO "+versionTable+" (version_id, is_applied) VALUES (?, TRUE), (?, TRUE)", newer-1, newer)
	says := func(version, oldest int64) {
		b.exec(t, "REPLACE INTO "+compatibilityTable+" (version, oldest) VALUES (?, ?)", version, oldest)
	}
	says(newer-1, 1)
	wantError(t, b.CheckSchema(t.Context()), "newer") // the newest does not say
	says(newer, schemaVersion())
	if err := b.CheckSchema(t.Context()); err != nil {
		t.Error(err)
	}
	if err := b.Migrate(t.Context()); err != nil {
		t.Error(err)
	}
	b.apply(t, step("1", creation, 1))
	says(newer-1, schemaVersion()+1)
	wantError(t, b.CheckSchema(t.Context()), "newer")
	wantError(t, b.Migrate(t.Context()), "newer")
}

func TestEveryMigrationSaysWhoCanWorkWithIt(t *testing.T) {
	b := setup(t)
	const first = 6 // a release from before it does not read the table, and refuses every newer schema
	var n int64
	if err := b.DB().QueryRow("SELECT COUNT(*) FROM "+compatibilityTable+" WHERE version >= ? AND oldest BETWEEN ? AND version", first, first).Scan(&n); err != nil {
		t.Fatal(err)
	}
	if n != schemaVersion()-first+1 {
		t.Errorf("%d of the migrations from %d to %d have a row in %s", n, first, schemaVersion(), compatibilityTable)
	}
}

func TestSchemaThatIsNot(t *testing.T) {
	b := unmigrated(t)
	b.exec(t, "DROP DATABASE "+b.cfg.DBName)
	target := openTarget(t, b.dsn)
	wantError(t, target.CheckSchema(t.Context()), "has no schema", "CREATE DATABASE", "ordersync setup")
	wantError(t, target.Migrate(t.Context()), "has no schema", "CREATE DATABASE", "ordersync setup")
}

// A team's generated column with an index survives repeated setups, and is kept by syncing.
func TestGeneratedColumn(t *testing.T) {
	b := setup(t)
	b.apply(t, withData(step("1", creation, 1), `{"total":12.5}`))
	b.exec(t, `ALTER TABLE orders ADD COLUMN total DECIMAL(12,2) AS (JSON_VALUE(data, '$.total')), ADD INDEX orders_total (total)`)
	if err := b.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.apply(t, withData(step("2", creation, 1), `{"total":99}`))
	b.apply(t, withData(step("3", creation, 1), `"a plain string"`))
	b.apply(t, withData(step("1", update, 2), `{"total":20.25}`))
	b.apply(t, step("1", invoice, 3))
	if err := b.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"1": "20.25", "2": "99.00"} {
		var found string
		err := b.DB().QueryRow("SELECT sync_id FROM orders FORCE INDEX (orders_total) WHERE total = " + want).Scan(&found)
		if err != nil || found != id {
			t.Errorf("total %s: got order %q (%v), want %s", want, found, err, id)
		}
	}
	row, _, err := b.Order(t.Context(), "1")
	if err != nil || row.Status != order.Invoiced || !sameJSON(t, row.Data, json.RawMessage(`{"total":20.25}`)) {
		t.Errorf("got %+v, %v", row, err)
	}
}
