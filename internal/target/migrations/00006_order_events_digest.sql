-- +goose Up
-- What tells two events of one identity apart where they have no version. NULL is not known: a row from before
-- this column, of a worker from before it, or of an event with a version. MySQL knows no IF NOT EXISTS here.
SET @ordersync_column = (SELECT IF(COUNT(*) > 0, 'SELECT 1',
    'ALTER TABLE order_events ADD COLUMN digest CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT ''of the data as it came; NULL if not known''')
  FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'order_events' AND COLUMN_NAME = 'digest');
PREPARE ordersync_column FROM @ordersync_column;
EXECUTE ordersync_column;
DEALLOCATE PREPARE ordersync_column;

-- Which ordersync can work with a schema that is newer than its own: from here on each migration adds a row. One
-- from before this table does not read it, and refuses every newer schema: no row names less than 6.
CREATE TABLE IF NOT EXISTS ordersync_compatibility (
  version BIGINT NOT NULL COMMENT 'of the schema',
  oldest  BIGINT NOT NULL COMMENT 'an ordersync whose newest version is this or above can work with it',
  PRIMARY KEY (version)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT='ordersync: which releases can work with a version of the schema';
INSERT IGNORE INTO ordersync_compatibility (version, oldest) VALUES (6, 6);
