-- +goose Up
-- original_data is no JSON column: what the server does not take as JSON is what gets amended.
CREATE TABLE IF NOT EXISTS operator_actions (
  sync_id       VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  action_id     CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  action        VARCHAR(32) NOT NULL COMMENT 'retry, skip, amend, replay, discard, terminate',
  event_id      CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'NULL for the order as a whole',
  operator      VARCHAR(255) NOT NULL COMMENT 'who did it',
  reason        TEXT NOT NULL,
  state_before  TEXT NOT NULL,
  effect        TEXT NOT NULL,
  original_data LONGTEXT NULL COMMENT 'what an amendment replaced, as it came',
  acted_at      DATETIME(6) NOT NULL COMMENT 'UTC',
  PRIMARY KEY (sync_id, action_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT='ordersync: what people did to orders, and why';
