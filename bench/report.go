package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"ordersync/bench/rig"
)

// measurement is what a system did in one round.
type measurement struct {
	orders int
	events int
	span   time.Duration // from the first order's start to the last one's end
	cpu    usage
}

// rate is orders per second.
func (m measurement) rate() float64 { return float64(m.orders) / m.span.Seconds() }

// eventRate is events per second.
func (m measurement) eventRate() float64 { return float64(m.events) / m.span.Seconds() }

// report has the rounds of each system.
type report map[string][]measurement

// write prints the table, and the ratios that its medians give.
func (r report) write(out io.Writer, o options) error {
	fmt.Fprintf(out, "\n%d orders of 3 events, medians of %d rounds; CPU in ms per order\n\n", o.orders, o.rounds)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "system\torders/s\tmin\tmax\tevents/s\tTemporal CPU\tMySQL CPU\tits own CPU\t")
	perOrder := func(part func(usage) time.Duration) func(measurement) float64 {
		return func(m measurement) float64 { return part(m.cpu).Seconds() * 1000 / float64(m.orders) }
	}
	for _, s := range systems {
		rounds := r[s.name]
		if len(rounds) == 0 {
			continue
		}
		rates := rig.Sorted(rounds, measurement.rate)
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%.2f\t\n", s.name,
			rig.Median(rounds, measurement.rate), rates[0], rates[len(rates)-1], rig.Median(rounds, measurement.eventRate),
			rig.Median(rounds, perOrder(func(u usage) time.Duration { return u.temporal })),
			rig.Median(rounds, perOrder(func(u usage) time.Duration { return u.mysql })),
			rig.Median(rounds, perOrder(func(u usage) time.Duration { return u.self })))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, other := range []string{naiveName, floorName} {
		if len(r[ordersyncName]) > 0 && len(r[other]) > 0 {
			fmt.Fprintf(out, "ratio to %s: %.2f\n", other, rig.Median(r[ordersyncName], measurement.rate)/rig.Median(r[other], measurement.rate))
		}
	}
	if len(r[ordersyncName]) > 0 && len(r[refusingName]) > 0 {
		fmt.Fprintf(out, "ratio refusing to ordersync: %.2f\n", rig.Median(r[refusingName], measurement.eventRate)/rig.Median(r[ordersyncName], measurement.eventRate))
	}
	return nil
}
