-- +goose Up
-- By when events were applied: what the last minute brought is read from the index's end, where new
-- rows also go, and rows older than Kafka's retention are found for their deletion. It is not unique,
-- so an insert locks no gap. MySQL knows no IF NOT EXISTS here.
SET @ordersync_index = (SELECT IF(COUNT(*) > 0, 'SELECT 1', 'CREATE INDEX applied_at ON order_events (applied_at)')
  FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'order_events' AND INDEX_NAME = 'applied_at');
PREPARE ordersync_index FROM @ordersync_index;
EXECUTE ordersync_index;
DEALLOCATE PREPARE ordersync_index;
