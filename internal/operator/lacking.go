package operator

import (
	"context"

	"ordersync/internal/order"
	"ordersync/internal/target"
)

// maxLacking is how many of the events that an unwell run held are named.
const maxLacking = 200

// Ledger is what knows the events that have arrived.
type Ledger interface {
	// Outcomes looks events up. One that is not there is not in the answer.
	Outcomes(context.Context, []target.EventKey) (map[target.EventKey]target.Entry, error)
}

// Lacking are the events of a story that the ledger lacks, the first ones, and how many there are. Where the
// story is not known as a whole and what is known of it has arrived, the number is -1.
func (s Story) Lacking(ctx context.Context, ledger Ledger, syncID string) (lacking []order.Held, count int, err error) {
	keys := make([]target.EventKey, len(s.Held))
	for i, h := range s.Held {
		keys[i] = target.EventKey{SyncID: syncID, ID: h.EventID}
	}
	found, err := ledger.Outcomes(ctx, keys)
	if err != nil {
		return nil, 0, err
	}
	lacking = []order.Held{}
	for i, h := range s.Held {
		if _, arrived := found[keys[i]]; arrived {
			continue
		}
		if count++; len(lacking) < maxLacking {
			lacking = append(lacking, h)
		}
	}
	if count == 0 && !s.Known {
		return nil, -1, nil
	}
	return lacking, count, nil
}
