package target

import "ordersync/internal/order"

// current is an order's row as far as decisions depend on it.
type current struct {
	version int64 // the version that last wrote data; 0 if none
	status  order.Status
}

// decide is the target's half of the order rules: what becomes of a step, given the order's row
// (nil where there is none).
//
//	                     no row              row
//	creation             applied             by version; stale if it has none
//	update               missing, or         by version; applied if it has none
//	                     applied if allowed
//	invoice              missing             applied
//
// By version: applied if the event's is the row's or above, or the row has none; else stale.
func decide(row *current, step order.Step) order.Outcome {
	e := step.Event
	switch {
	case row == nil && (e.Kind == order.Creation || e.Kind == order.Update && step.InsertMissing):
		return order.Applied
	case row == nil:
		return order.Missing
	case e.Kind == order.Invoice:
		return order.Applied
	case e.Versioned() && e.Version >= row.version: // a row without a version has 0
		return order.Applied
	case !e.Versioned() && e.Kind == order.Update:
		return order.Applied
	default:
		return order.Stale
	}
}

// statusAfter is the order's status once the step's outcome stands.
func statusAfter(row *current, kind order.Kind, outcome order.Outcome) order.Status {
	switch {
	case outcome == order.Applied && kind == order.Invoice:
		return order.Invoiced
	case row != nil:
		return row.status
	case outcome == order.Applied:
		return order.Open
	default:
		return ""
	}
}
