-- +goose Up
CREATE TABLE IF NOT EXISTS invoices (
  sync_id     VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  event_id    CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  data        JSON NOT NULL,
  occurred_at DATETIME(6) NOT NULL COMMENT 'the ERP''s time, UTC',
  created_at  DATETIME(3) NOT NULL COMMENT 'UTC',
  PRIMARY KEY (sync_id, event_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT='ordersync: one row per invoice_creation';
