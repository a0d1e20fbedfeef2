-- +goose Up
-- The comment marks the table as ordersync's, also after a setup that was killed half-way:
-- hence IF NOT EXISTS. There is no way down: it would drop the orders.
-- sync_id is compared by its bytes: ABC and abc are two orders.
CREATE TABLE IF NOT EXISTS orders (
  sync_id    VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  channel    VARCHAR(249) NOT NULL COMMENT 'of the event that last wrote data',
  data       JSON NOT NULL,
  version    BIGINT NULL COMMENT 'that last wrote data; NULL if none',
  status     ENUM('open', 'invoiced') NOT NULL,
  created_at DATETIME(3) NOT NULL COMMENT 'UTC',
  updated_at DATETIME(3) NOT NULL COMMENT 'UTC',
  PRIMARY KEY (sync_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT='ordersync: an order as its last creation or update left it';
