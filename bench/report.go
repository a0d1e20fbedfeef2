package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
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

// median takes the middle of one figure of all rounds, or the mean of the two in the middle.
func (r report) median(system string, figure func(measurement) float64) float64 {
	all := r.sorted(system, figure)
	half := len(all) / 2
	if len(all)%2 == 1 {
		return all[half]
	}
	return (all[half-1] + all[half]) / 2
}

func (r report) sorted(system string, figure func(measurement) float64) []float64 {
	var all []float64
	for _, m := range r[system] {
		all = append(all, figure(m))
	}
	slices.Sort(all)
	return all
}

// write prints the table, and the ratios that its medians give.
func (r report) write(out io.Writer, o options) error {
	fmt.Fprintf(out, "\n%d orders of 3 events, medians of %d rounds; CPU in ms per order\n\n", o.orders, o.rounds)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "system\torders/s\tmin\tmax\tevents/s\tTemporal CPU\tMySQL CPU\tits own CPU\t")
	perOrder := func(part func(usage) time.Duration) func(measurement) float64 {
		return func(m measurement) float64 { return part(m.cpu).Seconds() * 1000 / float64(m.orders) }
	}
	for _, s := range systems {
		if len(r[s.name]) == 0 {
			continue
		}
		rates := r.sorted(s.name, measurement.rate)
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%.2f\t\n", s.name,
			r.median(s.name, measurement.rate), rates[0], rates[len(rates)-1], r.median(s.name, measurement.eventRate),
			r.median(s.name, perOrder(func(u usage) time.Duration { return u.temporal })),
			r.median(s.name, perOrder(func(u usage) time.Duration { return u.mysql })),
			r.median(s.name, perOrder(func(u usage) time.Duration { return u.self })))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, other := range []string{naiveName, floorName} {
		if len(r[ordersyncName]) > 0 && len(r[other]) > 0 {
			fmt.Fprintf(out, "ratio to %s: %.2f\n", other, r.median(ordersyncName, measurement.rate)/r.median(other, measurement.rate))
		}
	}
	if len(r[ordersyncName]) > 0 && len(r[refusingName]) > 0 {
		fmt.Fprintf(out, "ratio refusing to ordersync: %.2f\n", r.median(refusingName, measurement.eventRate)/r.median(ordersyncName, measurement.eventRate))
	}
	return nil
}
