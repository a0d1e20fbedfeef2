-- +goose Up
-- A row stands here only while what its run held is missing: workers and `ordersync replay` take it away.
-- Temporal forgets a closed run with its retention; this does not.
CREATE TABLE IF NOT EXISTS unwell_runs (
  sync_id       VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  run_id        CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  trouble       VARCHAR(16) NOT NULL COMMENT 'failed, timed_out, terminated, canceled, tasks_fail',
  channel       VARCHAR(249) NOT NULL,
  since         DATETIME(6) NOT NULL COMMENT 'Temporal''s clock, UTC',
  reason        TEXT NOT NULL,
  lacking       LONGTEXT NULL COMMENT 'JSON: the first events that the ledger lacked; NULL if not known',
  lacking_count INT NOT NULL COMMENT '-1 if not known',
  PRIMARY KEY (sync_id, run_id, trouble)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT='ordersync: runs that ended without completing or cannot go on, while events of theirs are missing';
INSERT IGNORE INTO ordersync_compatibility (version, oldest) VALUES (7, 6);
