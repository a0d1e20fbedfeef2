package target

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	versionTable = "ordersync_migrations"
	// compatibilityTable has which releases can work with a schema that is newer than their own.
	compatibilityTable = "ordersync_compatibility"
	// ours begins the comment of every table that a migration makes.
	ours = "ordersync:"
	// migrateWait bounds the wait for another setup of the same schema.
	migrateWait = time.Minute
)

// created names the tables and the migrations that make them, for telling a table of somebody
// else's before it is written to.
var created = map[string]int64{"orders": 1, "invoices": 2, "order_events": 3, "operator_actions": 4, compatibilityTable: 6, "unwell_runs": 7}

// schemaVersion is the number of the newest migration in this binary.
var schemaVersion = sync.OnceValue(func() int64 {
	var newest int64
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		panic(err) // the pattern is malformed
	}
	for _, file := range files {
		number, err := goose.NumericComponent(file)
		if err != nil {
			panic(err) // an embedded file is misnamed
		}
		newest = max(newest, number)
	}
	return newest
})

// Migrate brings the schema to this binary's version. It can be repeated, runs once at a time per
// schema, and goes on where a killed one stopped. It refuses when a table it did not make bears a
// name it needs, and when the schema is newer than the binary.
func (t *Target) Migrate(ctx context.Context) (err error) {
	// Pooled connections give up on a statement after ioTimeout, which a migration of large
	// tables may take.
	cfg := t.cfg.Clone()
	cfg.ReadTimeout, cfg.WriteTimeout = 0, 0
	db, err := openDB(cfg, 2) // one holds the lock, the other works
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	holder, err := db.Conn(ctx)
	if err != nil {
		return t.unreachable(err)
	}
	defer func() { err = errors.Join(err, holder.Close()) }()
	if err := t.lockSchema(ctx, holder); err != nil {
		return err
	}
	if err := t.checkMigratable(ctx, db); err != nil {
		return err
	}
	return t.migrate(ctx, db)
}

// lockSchema takes the lock of this schema's migrations. It ends with the connection, so a killed
// setup leaves none behind.
func (t *Target) lockSchema(ctx context.Context, conn *sql.Conn) error {
	var got sql.Null[int64]
	err := conn.QueryRowContext(ctx, `SELECT GET_LOCK(CONCAT('ordersync.', MD5(DATABASE())), ?)`, migrateWait.Seconds()).Scan(&got)
	switch {
	case err != nil:
		return fmt.Errorf("lock the schema for migrating it: %w", err)
	case got.V != 1:
		return fmt.Errorf("another setup has been migrating schema %s for %s: wait for it, or end it, and try again", t.cfg.DBName, migrateWait)
	}
	return nil
}

// checkMigratable refuses a schema that cannot be migrated without harm, and mends the one state
// that goose cannot go on from: killed between making its version table and filling it.
func (t *Target) checkMigratable(ctx context.Context, db *sql.DB) error {
	var at int64
	switch version, exists, err := t.currentVersion(ctx, db); {
	case err != nil:
		return err
	case version > schemaVersion():
		return t.newer(ctx, db, version)
	case exists:
		at = version
		if _, err := db.ExecContext(ctx, `INSERT INTO `+versionTable+` (version_id, is_applied)
			SELECT 0, TRUE FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM `+versionTable+`)`); err != nil {
			return fmt.Errorf("complete %s: %w", versionTable, err)
		}
	}
	return t.refuseForeign(ctx, db, at)
}

// refuseForeign looks for tables (or views) that bear a name of ours, but that no migration up to
// the current version made, nor a killed one after it.
func (t *Target) refuseForeign(ctx context.Context, db *sql.DB, at int64) (err error) {
	rows, err := db.QueryContext(ctx, `SELECT TABLE_NAME, TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()`)
	if err != nil {
		return fmt.Errorf("list the tables of schema %s: %w", t.cfg.DBName, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var foreign []string
	for rows.Next() {
		var table, comment string
		if err := rows.Scan(&table, &comment); err != nil {
			return fmt.Errorf("list the tables of schema %s: %w", t.cfg.DBName, err)
		}
		if created[table] > at && !strings.HasPrefix(comment, ours) {
			foreign = append(foreign, table)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("list the tables of schema %s: %w", t.cfg.DBName, err)
	}
	if len(foreign) > 0 {
		slices.Sort(foreign)
		return fmt.Errorf("schema %s has tables that ordersync did not make and would write to: %s. "+
			"Let MYSQL_DSN name a schema of its own, or rename them; nothing was changed",
			t.cfg.DBName, strings.Join(foreign, ", "))
	}
	return nil
}

func (t *Target) migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectMySQL, db, files,
		goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrate schema %s: %w", t.cfg.DBName, err)
	}
	for _, r := range results {
		t.log.InfoContext(ctx, "migration applied", "schema", t.cfg.DBName, "migration", r.Source.Path, "duration", r.Duration)
	}
	return nil
}

// CheckSchema tells whether the server answers and the schema is at this binary's version.
func (t *Target) CheckSchema(ctx context.Context) error {
	version, exists, err := t.currentVersion(ctx, t.db)
	switch want := schemaVersion(); {
	case err != nil:
		return err
	case !exists:
		return fmt.Errorf("schema %s has no tables of ordersync's: run `ordersync setup`", t.cfg.DBName)
	case version < want:
		return fmt.Errorf("schema %s is at version %d, this ordersync needs %d: run `ordersync setup`", t.cfg.DBName, version, want)
	case version > want:
		return t.newer(ctx, t.db, version)
	}
	return nil
}

// newer returns whether this binary can work with a schema that is newer than its own: nil if it can. So a release
// that is rolled back to runs on what its successor's setup made.
func (t *Target) newer(ctx context.Context, db *sql.DB, version int64) error {
	var known, oldest sql.Null[int64]
	err := db.QueryRowContext(ctx, `SELECT MAX(version), MAX(oldest) FROM `+compatibilityTable+` WHERE version > ?`, schemaVersion()).Scan(&known, &oldest)
	switch {
	case err != nil && !hasNumber(err, unknownTable):
		return t.unreachable(err)
	case err == nil && known.V >= version && oldest.V <= schemaVersion():
		return nil
	}
	return fmt.Errorf("schema %s is at version %d, newer than the %d this ordersync knows: "+
		"deploy the ordersync whose `ordersync setup` made it", t.cfg.DBName, version, schemaVersion())
}

// currentVersion is the schema's version, and whether it has one at all.
func (t *Target) currentVersion(ctx context.Context, db *sql.DB) (version int64, exists bool, err error) {
	var newest sql.Null[int64]
	err = db.QueryRowContext(ctx, `SELECT MAX(version_id) FROM `+versionTable).Scan(&newest)
	switch {
	case hasNumber(err, unknownTable):
		return 0, false, nil
	case err != nil:
		return 0, false, t.unreachable(err)
	}
	return newest.V, true, nil
}

// unreachable says what keeps us from the schema.
func (t *Target) unreachable(err error) error {
	if hasNumber(err, unknownSchema) {
		return fmt.Errorf("the MySQL server at %s has no schema %s: make it with CREATE DATABASE `%s` CHARACTER SET utf8mb4, "+
			"then run `ordersync setup`: %w", t.cfg.Addr, t.cfg.DBName, t.cfg.DBName, err)
	}
	return fmt.Errorf("ask the MySQL server at %s for schema %s: %w", t.cfg.Addr, t.cfg.DBName, err)
}
