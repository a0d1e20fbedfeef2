package poll

import (
	"errors"
	"fmt"

	"ordersync/internal/order"
)

// The types of a poll's failures. All are retried.
const (
	ERPUnavailable    = "ERPUnavailable"
	KafkaUnavailable  = "KafkaUnavailable"
	LedgerUnavailable = "LedgerUnavailable"
)

// unavailable is the failure of the source, unless that has sorted it itself.
func unavailable(what string, err error) error {
	sorted := &order.Failure{Type: ERPUnavailable}
	errors.As(err, &sorted)
	return &order.Failure{Type: sorted.Type, Operator: sorted.Operator, Err: fmt.Errorf("%s: %w", what, err)}
}
