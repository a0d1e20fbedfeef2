-- +goose Up
-- The primary key is the only unique one, on purpose: it is what decides whether an event was applied.
-- Every further index is written with every event. Rows older than Kafka's retention may be deleted.
CREATE TABLE IF NOT EXISTS order_events (
  sync_id          VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  event_id         CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  kind             ENUM('order_creation', 'order_updation', 'invoice_creation') NOT NULL,
  version          BIGINT NULL,
  outcome          ENUM('applied', 'stale', 'skipped') NOT NULL,
  source_topic     VARCHAR(249) NOT NULL,
  source_partition INT NOT NULL,
  source_offset    BIGINT NOT NULL,
  occurred_at      DATETIME(6) NOT NULL COMMENT 'the ERP''s time, UTC',
  received_at      DATETIME(3) NOT NULL COMMENT 'the broker''s timestamp, UTC',
  applied_at       DATETIME(6) NOT NULL COMMENT 'this server''s clock, UTC',
  PRIMARY KEY (sync_id, event_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT='ordersync: the ledger, one row per event that is applied, stale or skipped';
