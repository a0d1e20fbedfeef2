package target

import (
	"slices"
	"strings"
	"testing"
	"time"

	"ordersync/internal/devstack/devtest"
)

func TestOpenRefusesADSN(t *testing.T) {
	for dsn, want := range map[string]string{
		"":                             "names no schema",
		"user:secret@tcp(db:3306)/":    "names no schema",
		"user:secret@tcp(db:3306)":     "missing the slash",
		"user:secret/shop":             "no tcp(host:port)",
		"user:sec@ret/shop":            "no tcp(host:port)",
		"u:secret@tcp(db)/s?tls=other": "unknown config name",
	} {
		_, err := Open(dsn, Options{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "user:password@tcp(host:3306)/schema") {
			t.Errorf("%q: got %v, want %q and the right form", dsn, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "ret ")) {
			t.Errorf("%q: the error tells the password: %v", dsn, err)
		}
	}
}

func TestOpenNeedsNoServer(t *testing.T) {
	openTarget(t, "user:secret@tcp(127.0.0.1:1)/shop")
}

func TestTimeoutsOfTheDSNStand(t *testing.T) {
	target := openTarget(t, "user:secret@tcp(127.0.0.1:1)/shop?readTimeout=2s&writeTimeout=3s&timeout=4s")
	if c := target.cfg; c.ReadTimeout != 2*time.Second || c.WriteTimeout != 3*time.Second || c.Timeout != 4*time.Second {
		t.Errorf("got %s, %s, %s", c.ReadTimeout, c.WriteTimeout, c.Timeout)
	}
	target = openTarget(t, "user:secret@tcp(127.0.0.1:1)/shop")
	if c := target.cfg; c.ReadTimeout != ioTimeout || c.WriteTimeout != ioTimeout || c.Timeout != dialTimeout {
		t.Errorf("got %s, %s, %s", c.ReadTimeout, c.WriteTimeout, c.Timeout)
	}
}

// A DSN that asks for everything else, on each of several connections.
func TestSessionIsAboveTheDSN(t *testing.T) {
	dsn := devtest.MySQL(t) + "?sql_mode=''&SQL_MODE='ANSI_QUOTES'&time_zone='%2B05:30'&charset=latin1&collation=gbk_chinese_ci" +
		"&loc=Asia%2FKolkata&parseTime=false&interpolateParams=false&rejectReadOnly=false&maxAllowedPacket=1024&autocommit=0"
	target := openTarget(t, dsn)
	if c := target.cfg; !c.InterpolateParams || !c.RejectReadOnly || !c.ParseTime || c.Loc != time.UTC {
		t.Errorf("driver: %+v", c)
	}
	isolation := "@@transaction_isolation"
	if err := target.DB().QueryRow("SELECT " + isolation).Scan(new(string)); err != nil {
		isolation = "@@tx_isolation" // MariaDB before 11.1
	}
	for range 3 {
		conn, err := target.DB().Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() }) // all at once, so that they differ
		var level, mode, zone, charset, collation string
		var autocommit bool
		var now time.Time
		err = conn.QueryRowContext(t.Context(), "SELECT "+isolation+", @@sql_mode, @@time_zone, @@character_set_client, @@collation_connection, @@autocommit, NOW(6)").
			Scan(&level, &mode, &zone, &charset, &collation, &autocommit, &now)
		if err != nil {
			t.Fatal(err)
		}
		if level != "READ-COMMITTED" || zone != "+00:00" || charset != "utf8mb4" || collation != "utf8mb4_bin" || !autocommit {
			t.Errorf("got isolation %s, zone %s, charset %s, collation %s, autocommit %t", level, zone, charset, collation, autocommit)
		}
		if modes := strings.Split(mode, ","); !slices.Contains(modes, "STRICT_TRANS_TABLES") || slices.Contains(modes, "ANSI") || slices.Contains(modes, "ANSI_QUOTES") {
			t.Errorf("sql_mode is %s", mode)
		}
		if off := time.Since(now).Abs(); off > time.Minute {
			t.Errorf("the server's now is off by %s", off)
		}
	}
}
