package erp_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/erp"
	"ordersync/internal/order"
)

var docsBlock = regexp.MustCompile("(?s)```sql\n-- (\\w+): (\\S+)\n(.*?)```")

// docsQueries writes the queries of docs/ERP.md for a database to a directory, and returns the schema.
func docsQueries(t testing.TB, kind string) (dir, schema string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/ERP.md")
	require.NoError(t, err)
	dir = t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "queries"), 0o750))
	files := 0
	for _, block := range docsBlock.FindAllStringSubmatch(string(text), -1) {
		switch {
		case block[1] != kind:
		case block[2] == "schema":
			schema = block[3]
		default:
			require.NoError(t, os.WriteFile(filepath.Join(dir, block[2]), []byte(block[3]), 0o600))
			files++
		}
	}
	require.Equal(t, 4, files)
	require.NotEmpty(t, schema)
	return dir, schema
}

func docsSource(t *testing.T, kind string) (database, erp.Source) {
	t.Helper()
	d := databases[kind](t)
	dir, schema := docsQueries(t, kind)
	d.exec(t, schema)
	return d, openSource(t, erp.Options{
		Kind: kind, URL: d.url, QueriesDir: filepath.Join(dir, "queries"), OrdersQuery: filepath.Join(dir, "orders.sql"),
	})
}

func ship(t *testing.T, d database, orderID int) {
	d.exec(t, fmt.Sprintf(`INSERT INTO orders (order_id, channel, customer, country) VALUES (%d, 'store', '17850', 'United Kingdom')`, orderID))
	d.exec(t, fmt.Sprintf(`INSERT INTO order_lines (order_id, line_no, sku, name, qty, price) VALUES
		(%d, 1, '85123A', 'WHITE "HANGING" HEART', 6, 2.55), (%d, 2, '71053', 'LANTERN é', 9007199, 9999999999.99)`, orderID, orderID))
}

func change(t *testing.T, d database, orderID int) {
	now := map[string]string{erp.MySQL: "UTC_TIMESTAMP(6)", erp.Postgres: "clock_timestamp()"}[d.kind]
	if d.kind == erp.MySQL {
		now = "CURRENT_TIMESTAMP(6)"
	}
	d.exec(t, fmt.Sprintf("UPDATE order_lines SET qty = 7 WHERE order_id = %d AND line_no = 1", orderID))
	d.exec(t, fmt.Sprintf("UPDATE orders SET version = version + 1, changed_at = %s WHERE order_id = %d", now, orderID))
}

// The queries of the documentation, as they stand there.
func TestDocumentedQueries(t *testing.T) {
	for kind := range databases {
		t.Run(kind, func(t *testing.T) {
			d, source := docsSource(t, kind)
			began := time.Now().UTC()
			ship(t, d, 1)
			d.exec(t, "INSERT INTO orders (order_id, channel, customer, country) VALUES (2, 'online', '2', 'France')") // no lines
			rows, place := poll(t, source, "", 10)
			require.Len(t, rows, 2)
			first := rows[0].Event
			require.Equal(t, "1", first.SyncID)
			require.Equal(t, order.Creation, first.Kind)
			require.Equal(t, order.Store, first.Channel)
			require.EqualValues(t, 1, first.Version)
			require.JSONEq(t, `{"customer":"17850","country":"United Kingdom","status":"open","lines":[
				{"sku":"85123A","name":"WHITE \"HANGING\" HEART","qty":6,"price":2.55},
				{"sku":"71053","name":"LANTERN é","qty":9007199,"price":9999999999.99}]}`, string(first.Data))
			require.Contains(t, string(first.Data), "9999999999.99", "digits are kept")
			require.WithinDuration(t, began, rows[0].ChangedAt, 10*time.Minute, "times are in UTC")
			require.Equal(t, rows[0].ChangedAt, first.OccurredAt)
			require.Contains(t, string(rows[1].Event.Data), `"lines":[]`)

			// Created and changed between two polls, and invoiced: never an update alone.
			ship(t, d, 3)
			change(t, d, 3)
			d.exec(t, "INSERT INTO invoices (invoice_id, order_id, total) VALUES (900, 3, 25.50)")
			change(t, d, 1)
			rows, place = poll(t, source, place, 10)
			var got []string
			for _, row := range rows {
				require.Nil(t, row.Rejected)
				require.True(t, row.Event.Versioned(), "a backfill leaves out what has no version")
				got = append(got, row.Event.SyncID+" "+row.Event.Name())
			}
			require.Equal(t, []string{"3 order_creation v1", "3 order_updation v2", "3 invoice_creation v2", "1 order_updation v2"}, got)
			require.Equal(t, order.ParseEventID("invoice-900"), rows[2].Event.ID)
			require.JSONEq(t, `{"invoice":900,"total":25.50}`, string(rows[2].Event.Data))
			var data struct{ Lines []struct{ Qty int } }
			require.NoError(t, json.Unmarshal(rows[3].Event.Data, &data))
			require.Equal(t, 7, data.Lines[0].Qty)

			// Whatever the overlap reads again is what was read.
			ids := map[string]bool{}
			for _, row := range rows {
				ids[row.Event.ID.String()] = true
			}
			rows, _ = again(t, source, place, time.Minute, 3)
			require.Len(t, rows, 6, "two creations, two updates, a creation and an invoice")
			for id := range ids {
				found := false
				for _, row := range rows {
					found = found || row.Event.ID.String() == id
				}
				require.True(t, found, id)
			}

			orders, err := source.Orders(t.Context(), "", 2)
			require.NoError(t, err)
			require.Len(t, orders.Orders, 2)
			require.True(t, orders.More)
			require.Equal(t, "1", orders.Orders[0].SyncID)
			require.EqualValues(t, 2, orders.Orders[0].Version)
			require.JSONEq(t, string(rows[len(rows)-1].Event.Data), string(orders.Orders[0].Data), "an order is as its last event")
			orders, err = source.Orders(t.Context(), orders.Next, 2)
			require.NoError(t, err)
			require.Len(t, orders.Orders, 1)
			require.False(t, orders.More)
			known, err := source.Known(t.Context(), []string{"1", "3", "4", "x", "03", "99999999999999999999"})
			require.NoError(t, err)
			require.Equal(t, map[string]bool{"1": true, "3": true}, known)
		})
	}
}

var lessonBlock = regexp.MustCompile("(?s)```sql\n-- lesson, (\\w+): (\\S+)\n(.*?)```")

// The queries for tables of a real ERP, as they stand in the documentation, and what goes wrong without them.
func TestDocumentedLessons(t *testing.T) {
	text, err := os.ReadFile("../../docs/ERP.md")
	require.NoError(t, err)
	for kind := range databases {
		t.Run(kind, func(t *testing.T) {
			d := databases[kind](t)
			dir := t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(dir, "queries"), 0o750))
			files := 0
			for _, block := range lessonBlock.FindAllStringSubmatch(string(text), -1) {
				switch {
				case block[1] != kind:
				case block[2] == "schema":
					d.exec(t, block[3])
				default:
					query := block[3]
					if kind == erp.MySQL && !strings.Contains(serverVersion(t, d), "MariaDB") {
						query = strings.ReplaceAll(query, " ORDER BY l.id)", ")")
					}
					require.NoError(t, os.WriteFile(filepath.Join(dir, block[2]), []byte(query), 0o600))
					files++
				}
			}
			require.Equal(t, 5, files)
			source := openSource(t, erp.Options{
				Kind: kind, URL: d.url, QueriesDir: filepath.Join(dir, "queries"), OrdersQuery: filepath.Join(dir, "orders.sql"),
			})
			zone := map[string]string{erp.Postgres: "+00"}[kind]
			day := time.Now().UTC().AddDate(0, 0, -7).Truncate(24 * time.Hour)
			at := func(hours int) string {
				return "'" + day.Add(time.Duration(hours)*time.Hour).Format("2006-01-02 15:04:05") + zone + "'"
			}
			version := func(hours int) int64 { return day.Add(time.Duration(hours) * time.Hour).UnixMicro() }
			var place erp.Cursor
			read := func() []string {
				t.Helper()
				rows, next := again(t, source, place, time.Minute, 3)
				var got []string
				for _, row := range rows {
					require.Nil(t, row.Rejected)
					if row.Event.Kind == order.Invoice { // which has an event_id
						require.Zero(t, row.Event.Version)
					} else {
						require.Equal(t, row.ChangedAt.UnixMicro(), row.Event.Version)
					}
					got = append(got, fmt.Sprint(row.Event.SyncID, " ", row.Event.Kind, " ", int(row.ChangedAt.Sub(day).Hours())))
				}
				place = next
				return got
			}

			// A draft, beside an order that was confirmed later than it was made.
			d.exec(t, "INSERT INTO sales VALUES (1, 'store', 'A', 'draft', NULL, "+at(0)+"), (2, 'online', 'B', 'confirmed', "+at(5)+", "+at(5)+")")
			d.exec(t, "INSERT INTO sale_lines VALUES (10, 1, 'x', 1, "+at(0)+"), (20, 2, 'y', 1, "+at(4)+"), (21, 2, 'z', 1, "+at(4)+")")
			require.Equal(t, []string{"2 order_creation 5"}, read())

			// The draft is confirmed: it is read, though it was made before what was read.
			d.exec(t, "UPDATE sales SET state = 'confirmed', confirmed_at = "+at(6)+", write_date = "+at(6)+" WHERE id = 1")
			require.Contains(t, read(), "1 order_creation 6")

			// A line changes alone, then the order.
			d.exec(t, "UPDATE sale_lines SET quantity = 7, write_date = "+at(7)+" WHERE id = 20")
			require.Contains(t, read(), "2 order_updation 7")
			d.exec(t, "UPDATE sales SET state = 'done', write_date = "+at(8)+" WHERE id = 2")
			require.Contains(t, read(), "2 order_updation 8")

			// An invoice for both orders: nothing as long as it is a draft, and nothing more when it is paid. A credit note.
			d.exec(t, "INSERT INTO bills VALUES (5, 'invoice', 'draft', 12.50, NULL, "+at(9)+")")
			d.exec(t, "INSERT INTO bill_sales VALUES (5, 1), (5, 2)")
			require.NotContains(t, strings.Join(read(), "\n"), "invoice")
			d.exec(t, "UPDATE bills SET state = 'posted', posted_at = "+at(10)+", write_date = "+at(10)+" WHERE id = 5")
			require.Subset(t, read(), []string{"1 invoice_creation 10", "2 invoice_creation 10"})
			d.exec(t, "UPDATE bills SET state = 'paid', write_date = "+at(11)+" WHERE id = 5")
			d.exec(t, "INSERT INTO bills VALUES (6, 'credit', 'posted', -2.50, "+at(12)+", "+at(12)+")")
			d.exec(t, "INSERT INTO bill_sales VALUES (6, 2)")
			got := strings.Join(read(), "\n")
			require.Contains(t, got, "2 invoice_creation 12")
			require.NotContains(t, got, "invoice_creation 11")

			all, _ := poll(t, source, "", 100)
			ids := map[string]bool{}
			for _, row := range all {
				ids[row.Event.SyncID+row.Event.ID.String()] = true
			}
			require.Len(t, ids, len(all), "each event has an identity of its own")

			// The newest line is deleted: the list of orders shows it, under a lower version.
			d.exec(t, "UPDATE sale_lines SET write_date = "+at(13)+" WHERE id = 21")
			require.Contains(t, read(), "2 order_updation 13")
			d.exec(t, "DELETE FROM sale_lines WHERE id = 21")
			orders, err := source.Orders(t.Context(), "", 10)
			require.NoError(t, err)
			require.Len(t, orders.Orders, 2)
			require.True(t, orders.Orders[1].Derived)
			require.Equal(t, version(8), orders.Orders[1].Version)
			require.JSONEq(t, `{"customer":"B","state":"done","lines":[{"product":"y","quantity":7}]}`, string(orders.Orders[1].Data))
		})
	}
}

func serverVersion(t *testing.T, d database) (version string) {
	t.Helper()
	require.NoError(t, d.db.QueryRowContext(t.Context(), "SELECT VERSION()").Scan(&version))
	return version
}
